"""A text of metrics, read back as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Scraped:
    """What a scrape has brought."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [one for family in self.families for one in family.samples]

    @property
    def series(self) -> Mapping[str, int]:
        """How many series each name has."""
        names = [sample.name for sample in self.samples]
        return {name: names.count(name) for name in names}

    def found(self, name: str, **labels: str) -> list[Sample]:
        """The series of this name with these labels, whatever others they have."""
        return [
            sample
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def total(self, name: str, **labels: str) -> float:
        """Their values together."""
        return sum(sample.value for sample in self.found(name, **labels))
