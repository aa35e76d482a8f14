// Draws the numbers that the page carries. Without it they are in tables all the same.
"use strict";

(() => {
  const HEIGHT = 160;
  const two = (number) => String(number).padStart(2, "0");
  const brief = (number) => String(Number(number.toPrecision(3)));

  const seconds = (value) => {
    if (value < 1) return `${brief(value * 1000)} ms`;
    if (value < 120) return `${brief(value)} s`;
    if (value < 7200) return `${brief(value / 60)} min`;
    return value < 172800 ? `${brief(value / 3600)} h` : `${brief(value / 86400)} d`;
  };
  const bytes = (value) => {
    const most = Math.abs(value);
    if (most < 1024) return `${brief(value)} B`;
    return most < 1048576 ? `${brief(value / 1024)} KiB` : `${brief(value / 1048576)} MiB`;
  };
  const WRITE = { seconds, bytes, count: (value) => value.toLocaleString("en") };

  // Steps of an axis: nobody has half a run, and a minute has sixty seconds.
  const tens = (from, to) =>
    Array.from({ length: to - from }, (_, power) => [1, 2, 5].map((one) => one * 10 ** (power + from))).flat();
  const STEPS = {
    count: tens(0, 10),
    seconds: [...tens(-4, 1), 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800],
    bytes: Array.from({ length: 44 }, (_, power) => 2 ** power),
  };

  const clock = (at) => `${two(at.getHours())}:${two(at.getMinutes())}`;
  const day = (at) => `${two(at.getMonth() + 1)}-${two(at.getDate())}`;

  // Colours are those of the style sheet, so that the dark needs nothing of its own.
  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const line = (one) => ({
    label: one.label,
    stroke: colour(one.colour),
    width: 1.5,
    points: { size: 4 },
  });
  const bar = (one) => ({
    label: one.label,
    stroke: colour(one.colour),
    fill: colour(one.colour),
    width: 0,
    paths: uPlot.paths.bars({ size: [0.75, 60], align: 1 }),
    points: { show: false },
  });

  // A dashed line for each deploy, in front of everything.
  const deploys = (marks) => (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.strokeStyle = colour("violet");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    for (const mark of marks) {
      const x = Math.round(plot.valToPos(mark.at, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };

  const options = (data, width) => {
    const { times, step, kind } = data;
    const last = times[times.length - 1] + step;
    const write = WRITE[kind];
    const axis = {
      stroke: colour("quiet"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: colour("line"), width: 1 },
      ticks: { show: false },
    };
    const isLong = last - times[0] > 172800;
    const when = (at) => (isLong ? `${day(at)} ${clock(at)}` : clock(at));
    return {
      width,
      height: HEIGHT,
      padding: [8, 16, 0, 0],
      scales: {
        x: { range: [times[0], last] },
        y: { range: (plot, least, most) => [Math.min(0, least || 0), most > 0 ? most * 1.1 : 1] },
      },
      axes: [
        {
          ...axis,
          size: 24,
          space: 60,
          values: (plot, splits) =>
            splits.map((split) => {
              const at = new Date(split * 1000);
              return isLong ? day(at) : clock(at);
            }),
        },
        {
          ...axis,
          size: 62,
          space: 28,
          incrs: STEPS[kind],
          values: (plot, splits) => splits.map((split) => (split === 0 ? "0" : write(split))),
        },
      ],
      series: [
        { label: data.time, value: (plot, value) => (value == null ? "" : when(new Date(value * 1000))) },
        ...data.series.map((one) => ({
          ...(one.bars ? bar(one) : line(one)),
          value: (plot, value, series, place) => (place == null ? "" : value == null ? "–" : write(value)),
        })),
      ],
      cursor: { y: false, drag: { x: false, y: false } },
      hooks: { draw: [deploys(data.marks)] },
    };
  };

  let plots = [];

  const draw = (box) => {
    const data = JSON.parse(box.dataset.chart);
    const columns = [data.times, ...data.series.map((one) => one.values)];
    plots.push(new uPlot(options(data, box.clientWidth || 320), columns, box));
  };
  const drawAll = () => {
    for (const plot of plots) plot.destroy();
    plots = [];
    for (const box of document.querySelectorAll("[data-chart]")) {
      // What is empty takes no room, and so has no width.
      box.classList.add("drawn");
      draw(box);
    }
  };

  let waiting = 0;
  const soon = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      for (const plot of plots) {
        const width = plot.root.parentElement.clientWidth;
        if (width && width !== plot.width) plot.setSize({ width, height: HEIGHT });
      }
    });
  };

  addEventListener("resize", soon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  document.addEventListener("htmx:afterSwap", drawAll);
  drawAll();
})();
