// What makes the pages handier. Without it everything can be read and done all the same.
"use strict";

(() => {
  const two = (number) => String(number).padStart(2, "0");

  // On a phone the pages are a row that scrolls: begin with the one that is shown.
  const current = document.querySelector(".pages [aria-current]");
  if (current) current.scrollIntoView({ block: "nearest", inline: "center" });

  // Times: from UTC to the zone of whoever looks.
  const localise = (root) => {
    for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      time.title = `${time.textContent} · ${at.toString()}`;
      const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
      time.textContent = `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
    }
  };

  // "All on this page".
  const offerAll = (root) => {
    for (const label of root.querySelectorAll("label.all[hidden]")) label.hidden = false;
  };
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-all]")) return;
    for (const box of event.target.form.querySelectorAll('input[name="row"]')) {
      box.checked = event.target.checked;
    }
  });

  // Live parts: refreshed while somebody looks and is not about to do something with them.
  const live = document.querySelector("[data-live]");
  if (live) {
    const status = live.querySelector("[role=status]");
    const button = live.querySelector("button");
    let paused = false;
    const say = (on) => {
      status.textContent = on ? status.dataset.wordsOn : status.dataset.wordsOff;
    };
    const isBusy = () => {
      const part = document.getElementById("live");
      if (!part || document.hidden || paused) return true;
      const here = part.contains(document.activeElement);
      return here || Boolean(part.querySelector("input:checked, details[open], .chart:hover"));
    };
    button.textContent = button.dataset.wordsOn;
    button.addEventListener("click", () => {
      paused = !paused;
      button.textContent = paused ? button.dataset.wordsOff : button.dataset.wordsOn;
      status.hidden = paused;
    });
    live.hidden = false;
    say(true);
    setInterval(() => {
      if (!isBusy()) document.getElementById("live").dispatchEvent(new Event("refresh"));
    }, Number(live.dataset.seconds) * 1000);
    document.addEventListener("htmx:beforeSwap", (event) => {
      // After a logout the answer is another page, and nothing to put in here.
      if (event.detail.xhr.status === 200 && !event.detail.xhr.responseText.includes('id="live"')) {
        event.detail.shouldSwap = false;
        location.reload();
      }
    });
    document.addEventListener("htmx:afterSwap", () => {
      const part = document.getElementById("live");
      localise(part);
      offerAll(part);
      say(true);
    });
    for (const trouble of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) {
      document.addEventListener(trouble, () => say(false));
    }
  }

  // A run of replays goes on by itself.
  const run = document.querySelector("form[data-goes-on]");
  if (run) setTimeout(() => run.submit(), 400);

  // "/" leads to the search box.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    document.getElementById("find")?.focus();
  });

  localise(document);
  offerAll(document);
})();
