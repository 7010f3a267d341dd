"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const palette = JSON.parse(at("colour-table").textContent);
  const marks = { both: [60, 180, 75], said: [220, 60, 50], true: [250, 210, 50] };
  const plain = [24, 24, 24];
  const lone = [240, 240, 240];
  const grey = [128, 128, 128];
  let now = null;
  let asked = 0;
  let pixel = null;

  const fetched = async (path) => {
    const answer = await fetch(path);
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.problem || `the viewer answered ${answer.status}`);
  };
  const tell = (error) => (at("problem").textContent = error ? error.message : "");
  const words = (value) => (value === null ? "-" : String(Number(value.toPrecision(4))));

  const show = async (session, frame) => {
    const turn = ++asked;
    const place = `session=${encodeURIComponent(session)}&frame=${frame}`;
    const info = await (await fetched(`frame.json?${place}`)).json();
    const names = [...info.maps, ...(info.labelled ? ["labels"] : [])];
    const maps = await Promise.all(
      names.map(async (name) => {
        const bytes = await (await fetched(`${name}.bin?${place}`)).arrayBuffer();
        return [name, name === "scores" ? new Float32Array(bytes) : new Uint8Array(bytes)];
      }),
    );
    if (turn !== asked) return;
    now = { ...info, place, ...Object.fromEntries(maps) };
    pixel = null;
    limits();
    at("shown").hidden = false;
    at("name").textContent = `${session}, frame ${frame}`;
    const pooled = now.step > 1 ? `; one point is ${now.step} x ${now.step} pixels, the highest score of them` : "";
    at("about").textContent = `${now.lines} lines x ${now.samples} samples${pooled}`;
    at("colour").parentElement.hidden = now.colours === null;
    if (now.colours !== null) {
      at("colour").querySelector("img").src = `colour.png?${place}`;
      at("colours").textContent = `false colour (${now.colours}), each from its 2nd to its 98th percentile`;
    }
    at("by-decisions").disabled = !now.decisions;
    at("by-scores").disabled = !now.scores;
    at(now.decisions ? "by-decisions" : "by-scores").checked = true;
    at("with-labels").disabled = !now.labels;
    at("scores").parentElement.hidden = !now.scores;
    at("slider").disabled = at("threshold").disabled = !now.scores;
    at("spectrum").toggleAttribute("hidden", true);
    document.querySelectorAll(".panel i").forEach((mark) => mark.remove());
    drawScores();
    drawMarks();
    at("name").scrollIntoView();
  };

  const limits = () => {
    let [low, high, least] = [Infinity, -Infinity, Infinity];
    for (const v of now.scores || []) {
      if (!Number.isFinite(v)) continue;
      if (v < low) low = v;
      if (v > high) high = v;
      if (v > 0 && v < least) least = v;
    }
    if (!(low <= high)) [low, high] = [0, 1];
    now.low = low > 0 ? low : least < high ? Math.max(least, high * 1e-6) : low;
    now.high = high > now.low ? high : now.low + 1;
    now.logarithmic = now.low > 0;
    const given = now.threshold ?? now.row.score_p999 ?? now.high;
    at("threshold").value = words(given);
    now.threshold = given;
    at("slider").value = String(1000 * part(given));
    at("range").textContent = `${words(now.low)} to ${words(now.high)}`;
  };
  const part = (v) => {
    const share = now.logarithmic
      ? Math.log(Math.max(v, now.low) / now.low) / Math.log(now.high / now.low)
      : (v - now.low) / (now.high - now.low);
    return Math.min(Math.max(share, 0), 1);
  };
  const value = (share) =>
    share === 1
      ? now.high
      : now.logarithmic
        ? now.low * Math.pow(now.high / now.low, share)
        : now.low + share * (now.high - now.low);

  const paint = (id, colour) => {
    const canvas = at(id).querySelector("canvas");
    canvas.width = now.width;
    canvas.height = now.height;
    const image = new ImageData(now.width, now.height);
    for (let i = 0; i < now.width * now.height; i++) {
      image.data.set(colour(i), 4 * i);
      image.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  };
  const drawScores = () => {
    if (!now.scores) return;
    paint("scores", (i) => {
      const v = now.scores[i];
      return Number.isNaN(v) ? grey : palette[Math.round(255 * part(v))];
    });
  };
  const drawMarks = () => {
    const stored = at("by-decisions").checked;
    const labels = at("with-labels").checked && !at("with-labels").disabled ? now.labels : null;
    const labelled = labels && labels.some((v) => v !== 255);
    const count = { said: 0, both: 0, true: 0 };
    paint("marks", (i) => {
      const invalid = stored ? now.decisions[i] === 255 : Number.isNaN(now.scores[i]);
      if (invalid) return grey;
      const said = stored ? now.decisions[i] === 1 : now.scores[i] >= now.threshold;
      const truth = labelled && labels[i] === 1;
      if (said) count.said++;
      if (truth) count.true++;
      if (said && truth) count.both++;
      if (said) return !labelled ? lone : truth ? marks.both : marks.said;
      return truth ? marks.true : plain;
    });
    const what = stored ? "decisions as stored" : `scores from ${words(now.threshold)} on`;
    const noun = now.step > 1 ? "point" : "pixel";
    const points = count.said === 1 ? noun : `${noun}s`;
    const against = labelled ? `; ${count.both} of ${count.true} labelled ${noun}s among them` : "";
    at("counts").textContent = `${what}: ${count.said} ${points}${against}`;
    const entries = labelled
      ? [[marks.both, "flagged and labelled"], [marks.said, "flagged only"], [marks.true, "labelled only"]]
      : [[lone, "flagged"]];
    at("key").replaceChildren(
      ...[...entries, [grey, "invalid"]].flatMap(([colour, text]) => {
        const box = document.createElement("i");
        box.style.background = `rgb(${colour})`;
        return [box, text];
      }),
    );
  };

  const look = async (x, y) => {
    pixel = [Math.min(Math.max(x, 0), now.width - 1), Math.min(Math.max(y, 0), now.height - 1)];
    for (const panel of document.querySelectorAll(".panel")) {
      const mark = panel.querySelector("i") || panel.appendChild(document.createElement("i"));
      mark.style.left = `${(100 * (pixel[0] + 0.5)) / now.width}%`;
      mark.style.top = `${(100 * (pixel[1] + 0.5)) / now.height}%`;
    }
    const held = now;
    const [column, line] = pixel.map((v) => v * now.step);
    const score = now.scores ? `; score ${words(now.scores[pixel[1] * now.width + pixel[0]])}` : "";
    at("where").textContent = `Line ${line}, sample ${column}${score}`;
    if (now.colours === null) return;
    const path = `spectrum.json?${now.place}&y=${line}&x=${column}`;
    const wanted = `${pixel}`;
    const found = await (await fetched(path)).json();
    if (held === now && wanted === `${pixel}`) spectrum(found);
  };

  const make = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, v] of Object.entries(attributes)) element.setAttribute(key, v);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const steps = (low, high, count) => {
    const raw = (high - low || 1) / count;
    const power = Math.pow(10, Math.floor(Math.log10(raw)));
    const size = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let v = Math.ceil(low / size) * size; v <= high + size * 1e-9; v += size) found.push(v);
    return found;
  };
  const spectrum = (found) => {
    const nm = now.wavelength;
    const xs = nm || found.values.map((_, i) => i);
    const known = [...found.values, ...(found.mean || [])].filter((v) => v !== null);
    const [left, right, top, bottom] = [80, 880, 34, 248];
    const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    const [low, high] = [Math.min(0, ...known), Math.max(...known, 1e-12)];
    const px = (v) => left + ((right - left) * (v - x0)) / (x1 - x0 || 1);
    const py = (v) => bottom - ((bottom - top) * (v - low)) / (high - low || 1);
    const line = (values, kind) =>
      make("path", {
        class: kind,
        d: values.reduce(
          ([text, pen], v, i) =>
            v === null ? [text, "M"] : [`${text}${pen}${px(xs[i]).toFixed(1)},${py(v).toFixed(1)}`, "L"],
          ["", "M"],
        )[0],
      });
    const parts = [make("path", { class: "axis", d: `M${left},${top}V${bottom}H${right}` })];
    for (const v of steps(x0, x1, 8))
      parts.push(make("text", { x: px(v), y: bottom + 18, "text-anchor": "middle" }, words(v)));
    for (const v of steps(low, high, 5))
      parts.push(make("text", { x: left - 8, y: py(v) + 4, "text-anchor": "end" }, words(v)));
    parts.push(
      make("text", { x: (left + right) / 2, y: bottom + 42, "text-anchor": "middle" }, nm ? "wavelength (nm)" : "channel"),
      make("text", { x: 16, y: (top + bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 16 ${(top + bottom) / 2})` }, `stored value${found.quantity ? ` (${found.quantity})` : ""}`),
      line(found.values, "pixel"),
      make("path", { class: "pixel", d: `M${left + 10},18h26` }),
      make("text", { x: left + 42, y: 22 }, `pixel at line ${found.y}, sample ${found.x}`),
    );
    if (found.mean)
      parts.push(
        line(found.mean, "mean"),
        make("path", { class: "mean", d: `M${left + 280},18h26` }),
        make("text", { x: left + 312, y: 22 }, `mean of the ${found.mean_of}`),
      );
    at("spectrum").replaceChildren(...parts);
    at("spectrum").toggleAttribute("hidden", false);
  };

  for (const panel of document.querySelectorAll(".panel")) {
    panel.addEventListener("click", (event) => {
      const box = panel.getBoundingClientRect();
      const x = Math.floor(((event.clientX - box.x) / box.width) * now.width);
      const y = Math.floor(((event.clientY - box.y) / box.height) * now.height);
      look(x, y).then(() => tell(null), tell);
    });
    panel.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const size = event.shiftKey ? 10 : 1;
      const [x, y] = pixel || [Math.floor(now.width / 2), Math.floor(now.height / 2)];
      look(x + way[0] * size, y + way[1] * size).then(() => tell(null), tell);
    });
  }
  const choose = (threshold) => {
    now.threshold = threshold;
    at("by-scores").checked = true;
    drawMarks();
  };
  at("slider").addEventListener("input", (event) => {
    const threshold = value(Number(event.target.value) / 1000);
    at("threshold").value = words(threshold);
    choose(threshold);
  });
  at("threshold").addEventListener("input", (event) => {
    if (event.target.value === "") return;
    at("slider").value = String(1000 * part(Number(event.target.value)));
    choose(Number(event.target.value));
  });
  for (const id of ["by-scores", "by-decisions", "with-labels"])
    at(id).addEventListener("input", drawMarks);
  for (const [id, way] of [["before", -1], ["after", 1]])
    at(id).addEventListener("click", () => {
      location.hash = `${encodeURIComponent(now.session)}/${now.frame + way}`;
    });

  const follow = () => {
    const [session, frame] = location.hash.slice(1).split("/");
    if (frame === undefined) return;
    show(decodeURIComponent(session), frame).then(() => tell(null), tell);
  };
  window.addEventListener("hashchange", follow);

  const list = async () => {
    const data = await (await fetched("tables.json")).json();
    const heads = data.tables.frames ? data.tables.frames.columns : [];
    document.querySelector("#frames thead tr").replaceChildren(
      ...heads.map((column) => {
        const head = document.createElement("th");
        head.scope = "col";
        head.className = column.words ? "text" : "number";
        head.textContent = column.name;
        return head;
      }),
    );
    showTables(data);
    follow();
  };
  list().catch(tell);
})();
