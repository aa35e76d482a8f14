"""An archive after months of work, made by the database itself.

First a table of runs is drawn: when, of which task, where, how long, how it ended. Rows of
runs, minutes and letters are made from that one table, so that they agree, as the recorder
and its chores would have left them. Few tasks run often and many seldom, by day more than
by night; each task has troubles of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from string import Template

import psycopg

QUEUES = 24
INCIDENTS = 20_000
ENTRIES = 100_000
LOCKS = 800
OUTBOX = 2_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is."""

    letters: int = 1_000_000
    runs: int = 10_000_000
    names: int = 500
    nodes: int = 100
    days: int = 90

    def __str__(self) -> str:
        return (
            f"{self.letters:,} letters, {self.runs:,} runs of {self.names:,} tasks on "
            f"{self.nodes:,} nodes in {self.days} days"
        )


DRAWN = """
CREATE UNLOGGED TABLE drawn_task AS
SELECT n, format('%s.tasks.%s_%s', app, verb, n) AS name,
       'queue-' || n % $queues AS queue,
       format(E'Traceback (most recent call last):\\n%s  File "/srv/shop/%s/tasks.py", '
              'line %s, in %s\\n    return client.call(order, timeout=30)\\n'
              '%s: order %s was refused by the other side\\n',
              repeat(E'  File "/usr/lib/python3/dist-packages/client/pool.py", line '
                     '211, in call\\n    return self._send(request)\\n', 6),
              app, 40 + n % 300, verb, error, n) AS traceback,
       error, format('%s (%s/tasks.py)', verb, app) AS place
FROM (
    SELECT n,
           (ARRAY['mail', 'billing', 'stock', 'search', 'media', 'crm', 'feeds',
                  'sync'])[1 + n % 8] AS app,
           (ARRAY['send', 'charge', 'update', 'index', 'resize', 'export',
                  'fetch'])[1 + n % 7] AS verb,
           (ARRAY['ValueError', 'requests.exceptions.Timeout', 'KeyError',
                  'django.db.utils.OperationalError', 'shop.errors.Refused'])[1 + n % 5]
               AS error
    FROM generate_series(0, $names - 1) AS n
) AS made;

CREATE UNLOGGED TABLE drawn AS
SELECT i, $now - make_interval(secs => $days * 86400 - at) AS at, task, node, seconds,
       CASE WHEN letter THEN 'bury' WHEN i % 10 = 1 THEN 'retry' ELSE 'ack' END AS verdict,
       CASE WHEN NOT letter THEN CASE WHEN i % 10 = 1 THEN 'retried' ELSE 'succeeded' END
            WHEN lot < 0.80 THEN 'failed' WHEN lot < 0.88 THEN 'hard_limit'
            WHEN lot < 0.93 THEN 'soft_limit' WHEN lot < 0.96 THEN 'child_lost'
            WHEN lot < 0.98 THEN 'rejected' ELSE 'unknown_task' END AS ending,
       md5(i::text)::uuid::text AS task_id
FROM (
    SELECT i, even - 0.12 * 86400 * sin(2 * pi() * even / 86400) AS at,
           floor($names * power(random(), 2.5))::int AS task,
           floor($nodes * random())::int AS node,
           exp(2.4 * (random() + random() + random()) - 6) AS seconds,
           i % greatest($runs / $letters, 1) = 0 AS letter, random() AS lot
    FROM (
        SELECT i, i::float8 * $days * 86400 / $runs AS even
        FROM generate_series(1::bigint, $runs) AS i
    ) AS evenly
) AS made;
ANALYZE drawn;
"""

REASON = """CASE ending WHEN 'child_lost' THEN CASE WHEN i % 3 = 0 THEN 'lost'
    ELSE 'poison' END ELSE ending END"""

RUNS = f"""
INSERT INTO unstuck_taskrun
    (run_id, task_id, task_name, queue, attempt, deliveries, ending, verdict, reason, cause,
     exception_type, exception_message, traceback, stack, soft_stack, swallowed_soft_limit,
     waiting_for, fingerprint, node, pid, started_at, ended_at, waited_seconds,
     runtime_seconds, rss_bytes, rss_growth_bytes, cpu_seconds, child_age_seconds)
SELECT gen_random_uuid(), task_id, name, queue, 1, 1, ending, verdict,
       CASE verdict WHEN 'bury' THEN {REASON} ELSE '' END, '',
       CASE ending WHEN 'succeeded' THEN '' ELSE error END,
       CASE ending WHEN 'succeeded' THEN '' ELSE 'order ' || i || ' was refused' END,
       CASE ending WHEN 'succeeded' THEN '' ELSE traceback END, '', '', false, '',
       CASE ending WHEN 'succeeded' THEN '' ELSE
            concat_ws(' | ', CASE verdict WHEN 'bury' THEN {REASON} ELSE ending END,
                      error, place) END,
       'celery@w' || node, 4000 + node, at - make_interval(secs => seconds), at,
       seconds / 4, seconds, 90000000 + i % 50000000, i % 4096, seconds / 3, i % 3600
FROM drawn JOIN drawn_task ON n = task;
"""

LETTERS = f"""
INSERT INTO unstuck_deadletter
    (letter_id, task_id, task_name, queue, args, kwargs, message, content_type,
     content_encoding, headers, properties, reason, cause, exception_type,
     exception_message, traceback, stack, soft_stack, waiting_for, fingerprint, attempts,
     deliveries, node, pid, runtime_seconds, buried_at, archived_at, replayed_at,
     replayed_as, replay_of)
SELECT gen_random_uuid(), task_id, name, queue, jsonb_build_array(i, 'customer ' || i % 9999),
       jsonb_build_object('order', i, 'city', 'Köln', 'card_token', '[redacted]'),
       convert_to(format('[[%s, "customer %s"], {{"order": %s, "city": "Köln"}}, '
                         '{{"callbacks": null, "errbacks": null, "chain": null}}]',
                         i, i % 9999, i), 'UTF8'),
       'application/json', 'utf-8',
       jsonb_build_object('id', task_id, 'task', name, 'root_id', task_id, 'retries', 3,
                          'lang', 'py', 'origin', 'gen4711@web-' || i % 20,
                          'timelimit', jsonb_build_array(null, null)),
       jsonb_build_object('correlation_id', task_id, 'delivery_mode', 2, 'priority', 0),
       {REASON}, CASE ending WHEN 'child_lost' THEN 'killed by SIGKILL: out of memory'
                 ELSE '' END,
       error, 'order ' || i || ' was refused', traceback,
       CASE ending WHEN 'hard_limit' THEN traceback ELSE '' END, '', '',
       concat_ws(' | ', {REASON}, error, place), 4, 1, 'celery@w' || node, 4000 + node,
       seconds, at, at, CASE WHEN letter % 10 < 6 THEN at + interval '1 hour' END,
       CASE WHEN letter % 10 < 6
            THEN coalesce(lead(task_id) OVER (ORDER BY i), '') ELSE '' END,
       CASE WHEN (letter - 1) % 10 < 6
            THEN coalesce(lag(task_id) OVER (ORDER BY i), '') ELSE '' END
FROM (SELECT *, row_number() OVER (ORDER BY i) AS letter FROM drawn
      WHERE verdict = 'bury') AS buried JOIN drawn_task ON n = task;
"""

MINUTES = """
CREATE UNLOGGED TABLE drawn_part AS
SELECT minute, span, node, task, bucket, count(*) AS runs,
       count(*) FILTER (WHERE ending = 'succeeded') AS succeeded,
       count(*) FILTER (WHERE ending = 'failed') AS failed,
       count(*) FILTER (WHERE ending = 'retried') AS retried,
       count(*) FILTER (WHERE ending = 'soft_limit') AS soft_limit,
       count(*) FILTER (WHERE ending = 'hard_limit') AS hard_limit,
       count(*) FILTER (WHERE ending = 'child_lost') AS lost,
       count(*) FILTER (WHERE ending IN ('rejected', 'unknown_task')) AS other,
       sum(seconds) AS seconds, max(seconds) AS longest, sum(i % 4096) AS growth
FROM (
    SELECT *, greatest(0, floor(8 * ln(seconds) / ln(2::float8))::int + 105) AS bucket,
           CASE WHEN at >= $now - interval '2 hours' THEN date_trunc('minute', at)
                WHEN at >= $now - interval '25 hours'
                    THEN date_bin('15 minutes', at, '2000-01-01')
                ELSE date_trunc('hour', at) END AS minute,
           CASE WHEN at >= $now - interval '2 hours' THEN 1
                WHEN at >= $now - interval '25 hours' THEN 15 ELSE 60 END AS span
    FROM (SELECT i, at, task, ending, seconds, CASE WHEN at >= $now - interval '5 minutes'
                 THEN 'celery@w' || node ELSE '' END AS node FROM drawn) AS told
) AS placed
GROUP BY minute, span, node, task, bucket;

INSERT INTO unstuck_taskminute
    (minute, span_minutes, node, task_name, queue, succeeded, failed, retried, soft_limit,
     hard_limit, lost, other, swallowed, runtime_seconds, runtime_max, runtimes,
     wait_seconds, wait_max, waits, waits_unknown, rss_growth_bytes)
SELECT minute, span, node, name, queue, sum(succeeded), sum(failed), sum(retried),
       sum(soft_limit), sum(hard_limit), sum(lost), sum(other), 0, sum(seconds),
       max(longest), string_agg(bucket || ':' || runs, ' ' ORDER BY bucket),
       sum(seconds) / 4, max(longest) / 4,
       string_agg(greatest(0, bucket - 16) || ':' || runs, ' ' ORDER BY bucket), 0,
       sum(growth)
FROM drawn_part JOIN drawn_task ON n = task
GROUP BY minute, span, node, name, queue ORDER BY minute;
DROP TABLE drawn_part;
"""

REST = """
INSERT INTO unstuck_queuesample
    (queue, at, waiting, oldest_seconds, reserved, delayed, consumers, grain_seconds)
SELECT 'queue-' || queue, at, (random() * 1000)::int, random() * 60, 16, 3, 8,
       CASE WHEN extract(epoch FROM at)::bigint % 900 < 15 THEN 900
            WHEN extract(epoch FROM at)::bigint % 60 < 15 THEN 60 ELSE 0 END
FROM generate_series(0, $queues - 1) AS queue,
     LATERAL (
        SELECT generate_series($now - interval '1 day', $now, '15 seconds') AS at
        UNION ALL SELECT generate_series(date_trunc('minute', $now) - interval '7 days',
                                         $now - interval '1 day', '1 minute')
        UNION ALL SELECT generate_series(
            date_trunc('hour', $now) - make_interval(days => $days),
            $now - interval '7 days', '15 minutes')
     ) AS moments
ORDER BY at;

INSERT INTO unstuck_incident
    (incident_id, kind, at, node, process, pid, what, resolved_at, stack, waiting_for,
     details)
SELECT gen_random_uuid(), kind, $now - make_interval(secs => $days * 86400 * (1 - i /
       $incidents::float8)), 'celery@w' || i % $nodes, 'main', 4711,
       'It said nothing for 30 s and was started again.', NULL, repeat('stack ', 200), '',
       CASE kind WHEN 'release' THEN jsonb_build_object('release', '1.' || i / 500)
                 ELSE '{}' END
FROM generate_series(1, $incidents) AS i, LATERAL (SELECT CASE WHEN i % 500 = 0
     THEN 'release' ELSE (ARRAY['stall', 'child_lost', 'memory', 'facts_dropped'])[1 + i % 4]
     END AS kind) AS kinds;

INSERT INTO unstuck_auditentry (at, who, what, why, target, details)
SELECT $now - make_interval(secs => $days * 86400 * (1 - i / $entries::float8)),
       'operator-' || i % 12, CASE WHEN i % 20 = 0 THEN 'purge' ELSE 'replay' END,
       'the other side is back, ticket ' || i / 50, md5(i::text)::uuid::text,
       jsonb_build_object('row', i)
FROM generate_series(1, $entries) AS i;

INSERT INTO unstuck_node
    (name, host, pid, state, started_at, seen_at, pool, concurrency, queues, broker,
     unstuck_version, celery_version, python_version, release, running, facts_lag_seconds,
     chores_failed, facts_dropped, facts_left_out)
SELECT 'celery@w' || n, 'host-' || n, 4711, 'ready', $now - interval '2 days', $now,
       'unstuck.pool:Pool', 8, jsonb_build_array('queue-' || n % $queues), 'unstuck+redis',
       '0.1', '5.7.0', '3.12.1', '1.40', running, 0.2, 0, 0, 0
FROM generate_series(0, $nodes - 1) AS n, LATERAL (
    SELECT jsonb_agg(jsonb_build_object(
        'task_id', md5(n || '-' || child)::uuid::text, 'task_name', name, 'queue', queue,
        'started_at', $now - make_interval(secs => child * 7), 'soft', 270, 'hard', 300,
        'pid', 5000 + child)) AS running
    FROM generate_series(1, 8) AS child
    JOIN drawn_task ON drawn_task.n = (child * 31) % $names) AS runs;

INSERT INTO unstuck_lock
    (name, fence, token, born, pid, node, task_id, task_name, since, until)
SELECT 'report:' || n, n, 'owner-' || n, 1, 4711, 'celery@w' || n % $nodes,
       md5(n::text)::uuid::text, 'billing.tasks.charge_1',
       extract(epoch FROM $now)::bigint * 1000000,
       (extract(epoch FROM $now)::bigint + 86400) * 1000000
FROM generate_series(1, $locks) AS n;

INSERT INTO unstuck_outboxmessage
    (message_id, task_id, task_name, queue, body, envelope, written_at, due_at, attempts,
     last_error)
SELECT gen_random_uuid(), md5('outbox' || n)::uuid::text, 'billing.tasks.charge_1',
       'queue-1', '', '{}', $now, $now + interval '1 day', 0, ''
FROM generate_series(1, $outbox) AS n;
"""

STEPS = {
    "drawing lots": DRAWN,
    "runs": RUNS,
    "letters": LETTERS,
    "minutes": MINUTES,
    "the rest": REST + "DROP TABLE drawn; DROP TABLE drawn_task;",
}
TABLES = ("unstuck_taskrun", "unstuck_deadletter", "unstuck_taskminute")


def fill(url: str, size: Size) -> dict[str, float]:
    """Fill the empty tables of a database; how many seconds each step took."""
    words = {
        "now": "transaction_timestamp()",
        "letters": size.letters,
        "runs": size.runs,
        "names": size.names,
        "nodes": size.nodes,
        "days": size.days,
        "queues": QUEUES,
        "incidents": INCIDENTS,
        "entries": ENTRIES,
        "locks": LOCKS,
        "outbox": OUTBOX,
    }
    took = {}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET work_mem = '1GB'; SELECT setseed(0.5)")
        with (
            _clocked(took, "indexes"),
            _without_indexes(connection),
            connection.transaction(),  # It is the same instant for all of them.
        ):
            for name, sql in STEPS.items():
                with _clocked(took, name):
                    connection.execute(Template(sql).substitute(words))  # type: ignore[arg-type]
        took["indexes"] -= sum(took[name] for name in STEPS)
        with _clocked(took, "vacuum"):
            connection.execute("VACUUM (ANALYZE)")
        with _clocked(took, "warming up"):
            _warm_up(connection)
    return took


def _warm_up(connection: psycopg.Connection) -> None:
    """Be a server that has been up for long: what is looked at is in its memory.

    Or who reads first waits for the disk, to which all of this has just gone.
    """
    connection.execute("CHECKPOINT")
    os.sync()
    connection.execute("CREATE EXTENSION pg_prewarm")
    connection.execute(
        "SELECT pg_prewarm(oid) FROM pg_class WHERE relname LIKE 'unstuck_%' "
        "AND relkind IN ('r', 'i') ORDER BY relname LIKE 'unstuck_taskrun%' DESC"
    )


@contextmanager
def _without_indexes(connection: psycopg.Connection) -> Iterator[None]:
    """What is written meanwhile is put into the indexes afterwards, at once."""
    tables = list(TABLES)
    constraints = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
        "FROM pg_constraint WHERE contype IN ('p', 'u') AND "
        "conrelid::regclass::text = ANY(%s)",
        [tables],
    ).fetchall()
    for table, name, _ in constraints:
        connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    indexes = connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)", [tables]
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f'DROP INDEX "{name}"')
    yield
    for _, definition in indexes:
        connection.execute(definition)
    for table, name, definition in constraints:
        connection.execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')


@contextmanager
def _clocked(took: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took[name] = time.monotonic() - began
