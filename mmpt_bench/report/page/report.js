"use strict";
(async () => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (name, text = "", kind = "") => {
    const element = document.createElement(name);
    if (text !== "") element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const say = (text) => { one("#said").textContent = text; };

  // Theme: the system's by default, the other one on request, for this page alone.
  const theme = one("#theme");
  const isDark = () => {
    const set = document.documentElement.dataset.theme;
    return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const showTheme = () => { theme.setAttribute("aria-pressed", String(isDark())); };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  showTheme();

  // What was packed for the size of the page.
  const inflated = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
  };
  const parts = all("[data-part]");
  if (parts.length) {
    const texts = await Promise.allSettled(parts.map(async (part) => (await inflated(part.dataset.part)).text()));
    texts.forEach(({ status, value }, index) => {
      if (status === "rejected") return;
      const template = make("template");
      template.innerHTML = value;
      parts[index].replaceWith(template.content);
    });
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }

  // On a narrow screen each row of a table is a card, whose cells say what they are. What is no longer shown as a table
  // says that it is one.
  const label = (table) => {
    const heads = [...table.tHead.rows[0]?.cells ?? []].map((head) => head.textContent.trim());
    table.classList.add("stacked");
    table.setAttribute("role", "table");
    for (const group of [table.tHead, ...table.tBodies]) group.setAttribute("role", "rowgroup");
    for (const row of table.rows) {
      row.setAttribute("role", "row");
      [...row.cells].forEach((cell, index) => {
        cell.setAttribute("role", { col: "columnheader", row: "rowheader" }[cell.scope] ?? "cell");
        if (cell.parentElement.parentElement !== table.tHead) {
          cell.dataset.label = heads[index] ?? "";
          if (cell.textContent.trim() === "–") cell.dataset.none = "";
        }
      });
    }
  };
  all("table:not(#raw)").forEach(label);

  // Sorting: a click sorts the best way first, a second one turns it round; what has no value stays at the end.
  const valueOf = (cell, kind) => {
    const text = cell.dataset.v ?? cell.textContent.trim();
    if (kind === "text" || text === "") return text === "" ? null : text;
    const number = Number(text);
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  const sort = (table, index, direction) => {
    const body = table.tBodies[0];
    const kind = table.tHead.rows[0].cells[index].dataset.kind;
    const rows = [...body.rows].map((row, place) => ({ row, place, value: valueOf(row.cells[index], kind) }));
    rows.sort((a, b) => {
      if (a.value === null || b.value === null) return (a.value === null) - (b.value === null) || a.place - b.place;
      return direction * compare(a.value, b.value) || a.place - b.place;
    });
    body.append(...rows.map((each) => each.row));
  };
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      if (!head.hasAttribute("aria-sort")) return;
      const button = make("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const upFirst = head.dataset.kind === "text" || /^(Rank|By score)/.test(head.textContent);
        const next = before === "none" ? (upFirst ? "ascending" : "descending")
          : before === "ascending" ? "descending" : "ascending";
        heads.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        sort(table, index, next === "ascending" ? 1 : -1);
        say(`Sorted by ${head.textContent.trim()}, ${next}.`);
      });
    });
  }

  // Galleries are sorted by how far maps of a model disagree.
  for (const form of all("[data-sorts]")) {
    const list = document.getElementById(form.dataset.sorts);
    const apart = (item) => Number(item.dataset.apart.split(" ")[form.elements.model.value]);
    const sort = () => list.replaceChildren(
      ...[...list.children].sort((a, b) => form.elements.order.value * (apart(a) - apart(b))));
    form.addEventListener("change", sort);
    sort();
  }

  // Filters of the leaderboard and of the samples.
  const filter = (form, items, wanted, what) => {
    const update = () => {
      let shown = 0;
      for (const item of items) {
        item.hidden = !wanted(item, form.elements);
        shown += !item.hidden;
      }
      one(".count", form).value = `${shown} of ${items.length} ${what}`;
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
  };
  for (const form of all(".filters[data-for]")) {
    const target = document.getElementById(form.dataset.for);
    if (form.classList.contains("browse")) {
      filter(form, all(".card", target), (card, { task, right, wrong }) =>
        (!task.value || card.dataset.task === task.value) &&
        (!right.value || card.dataset.right.includes(`|${right.value}|`)) &&
        (!wrong.value || card.dataset.wrong.includes(`|${wrong.value}|`)), "samples");
    } else {
      filter(form, [...target.tBodies[0].rows], (row, { text, share, ranked, clean }) =>
        row.dataset.label.toLowerCase().includes(text.value.trim().toLowerCase()) &&
        (share.value === "" || Number(row.dataset.share) <= Number(share.value)) &&
        (!ranked.checked || row.dataset.ranked === "1") &&
        (!clean.checked || row.dataset.clean === "1"), "methods");
    }
  }

  // A cell opens what is behind it; its raw answers are one choice further.
  const dialog = one("#cell");
  const rawRow = (row) => ({ id: row.id, keys: row.dataset.keys.split(" ").map((each) => each.split(":")) });
  const openCell = (row) => {
    const table = row.closest("table");
    const heads = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    one("#cell-title").textContent = `${row.cells[0].textContent.trim()}: ${table.dataset.title}`;
    one("#cell-about").textContent = table.caption.textContent;
    const list = one("#cell-list");
    list.replaceChildren();
    [...row.cells].forEach((cell, index) => {
      if (index === 0 || cell.querySelector(".raw")) return;
      list.append(make("dt", heads[index]), make("dd", cell.textContent.trim()));
    });
    const actions = one("#cell-actions");
    actions.replaceChildren();
    const [board, , place] = row.id.slice(1).split("-");
    const targets = row.dataset.keys !== undefined ? [[row, "Raw answers"]]
      : table.dataset.tasks.trim().split(" ").filter(Boolean)
        .map((task) => document.getElementById(`d${board}-${task}-${place}`)).filter(Boolean)
        .map((each) => [each, `Raw answers: ${each.closest("table").dataset.title}`]);
    for (const [target, text] of targets) {
      const button = make("button", text);
      button.type = "button";
      button.addEventListener("click", () => { dialog.close(); showAnswers(target); });
      actions.append(button);
    }
    dialog.showModal();
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.cell");
    if (link) {
      const row = document.getElementById(link.hash.slice(1));
      if (row) { event.preventDefault(); openCell(row); }
    }
    const raw = event.target.closest("a.raw");
    if (raw) { event.preventDefault(); showAnswers(raw.closest("tr")); }
    if (event.target === dialog) dialog.close();
  });
  all("a.cell").forEach((link) => link.setAttribute("aria-haspopup", "dialog"));

  // Raw answers: unpacked when they are first asked for.
  const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz";
  const PAGE = 50;
  let packed = null;
  let first = 0;
  const unpack = async () => {
    if (packed) return packed;
    packed = await (await inflated(one("#packed").textContent)).json();
    return packed;
  };
  const choose = one("#choose");
  const rows = all("table.detail tr[data-keys]");
  const places = rows.map((row) => {
    const table = row.closest("table");
    return { row, board: table.dataset.board, method: row.cells[0].textContent.trim(), task: table.dataset.title, ...rawRow(row) };
  });
  const many = new Set(places.map((place) => place.board)).size > 1;
  const named = (place) => many ? `${place.method} (${place.board})` : place.method;
  const fill = (select, values, wanted) => {
    select.replaceChildren(...values.map((value) => make("option", value)));
    if (values.includes(wanted)) select.value = wanted;
  };
  const current = () => places.find((place) =>
    named(place) === choose.elements.method.value && place.task === choose.elements.task.value);
  const offer = (method, task, seed) => {
    const { method: methods, task: tasks, seed: seeds } = choose.elements;
    fill(methods, [...new Set(places.map(named))], method ?? methods.value);
    fill(tasks, places.filter((place) => named(place) === methods.value).map((place) => place.task), task ?? tasks.value);
    fill(seeds, current().keys.map(([each]) => each), seed ?? seeds.value);
  };
  const render = async () => {
    let data;
    try {
      data = await unpack();
    } catch (error) {
      one("#raw").caption.textContent =
        `This browser cannot unpack the answers (${error.message}); they are in records.jsonl of the results folder.`;
      return;
    }
    const table = one("#raw");
    const { seed, show, text } = choose.elements;
    const place = current();
    const key = place.keys.find(([each]) => each === seed.value)[1];
    const answer = data.answers[key];
    table.tHead.replaceChildren();
    table.tBodies[0].replaceChildren();
    one("#back").disabled = one("#next").disabled = true;
    const about = `${named(place)} on ${place.task}, seed ${seed.value}`;
    if (!answer) {
      one(".count", choose).value = "";
      table.caption.textContent = `${about}: left out of this page for its size; it is record ${key} in records.jsonl.`;
      return;
    }
    const asked = data.samples[answer.samples];
    const word = (letter, i) => letter === "-" ? "unreadable" : asked.choices[asked.set[i]][DIGITS.indexOf(letter)];
    const counts = answer.decode === "generate" ? answer.parsed : answer.ranked;
    const needle = text.value.trim().toLowerCase();
    const found = [];
    for (let i = 0; i < asked.ids.length; i += 1) {
      const right = DIGITS.indexOf(counts[i]) === asked.right[i];
      const unreadable = answer.parsed[i] === "-";
      if (show.value === "wrong" && right || show.value === "right" && !right) continue;
      if (show.value === "unreadable" && !unreadable) continue;
      const reply = answer.replies ? answer.replies[answer.reply[i]] : "";
      const question = asked.questions[i] ?? "";
      if (needle && ![asked.ids[i], asked.groups[i], question, reply].some((each) => each.toLowerCase().includes(needle))) continue;
      found.push({ i, right, reply, question });
    }
    first = Math.min(first, Math.max(0, Math.floor((found.length - 1) / PAGE) * PAGE));
    const page = found.slice(first, first + PAGE);
    const names = ["Sample", ...(asked.questions.length ? ["Question"] : []), "Group", "Image", "Right answer",
      "Read from the reply", "Most probable", ...(answer.replies ? ["Reply"] : []), "Counts as"];
    const head = make("tr");
    head.append(...names.map((name) => {
      const cell = make("th", name);
      cell.scope = "col";
      return cell;
    }));
    table.tHead.append(head);
    for (const { i, right, reply, question } of page) {
      const line = make("tr");
      const id = make("th", asked.ids[i]);
      id.scope = "row";
      line.append(id);
      if (asked.questions.length) line.append(make("td", question));
      line.append(make("td", asked.groups[i]), make("td", asked.pictures[i]),
        make("td", asked.choices[asked.set[i]][asked.right[i]]), make("td", word(answer.parsed[i], i)),
        make("td", answer.ranked ? word(answer.ranked[i], i) : ""));
      if (answer.replies) line.append(make("td", reply));
      line.append(make("td", right ? "right" : "wrong", right ? "right" : "wrong"));
      table.tBodies[0].append(line);
    }
    label(table);
    table.caption.textContent = `${about}: run ${answer.run}; what counts is ${answer.decode === "generate" ? "the reply" : "the most probable answer"}`;
    one(".count", choose).value = found.length
      ? `${first + 1} to ${first + page.length} of ${found.length} (${asked.ids.length} asked)` : `none of ${asked.ids.length}`;
    one("#back").disabled = first === 0;
    one("#next").disabled = first + PAGE >= found.length;
  };
  const showAnswers = async (row) => {
    const place = places.find((each) => each.row === row);
    choose.reset();
    first = 0;
    offer(named(place), place.task, place.keys[0][0]);
    await render();
    one("#answers").scrollIntoView();
    choose.elements.method.focus({ preventScroll: true });
    say(one("#raw").caption.textContent);
  };
  if (choose && places.length) {
    one("#viewer").hidden = false;
    offer();
    choose.addEventListener("submit", (event) => event.preventDefault());
    choose.addEventListener("input", () => { first = 0; offer(); render(); });
    one("#back").addEventListener("click", () => { first -= PAGE; render(); });
    one("#next").addEventListener("click", () => { first += PAGE; render(); });
    new IntersectionObserver((seen, observer) => {
      if (seen.some((each) => each.isIntersecting)) { observer.disconnect(); if (!packed) render(); }
    }).observe(one("#viewer"));
  }

  // Commands to copy, figures to keep, and everything unfolded on paper.
  for (const button of all(".copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(one("code", button.parentElement).textContent);
      say("Copied.");
      button.textContent = "Copied";
    });
  }
  for (const link of all("[data-figure]")) {
    const image = one("svg", link.closest("figure"));
    const text = new XMLSerializer().serializeToString(image);
    link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    link.download = `${image.dataset.name}.svg`;
    link.hidden = false;
  }
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((each) => { each.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((each) => { each.open = false; }));
})();
