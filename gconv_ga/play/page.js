"use strict";

// The page: what the user chooses, what the workers compute, and how it is drawn.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { side } = data;
  const area = side * side;
  const roles = data.baseline ? ["baseline", "ours"] : ["ours"];
  const read = ({ weights, ...rest }) => Engine.readNetwork(rest, new Float32Array(Engine.decodeBytes(weights).buffer));
  const ours = data.networks.map(read);
  const baseline = data.baseline && read(data.baseline);
  const images = data.images.map(({ name, pixels }) => ({ name, raw: Float32Array.from(Engine.decodeBytes(pixels)) }));
  const compared = Array.from({ length: area }, (_, at) => Engine.isCompared(at, side));
  const total = compared.filter(Boolean).length;
  const state = {
    image: 0, degrees: 0, taps: ours.length - 1, field: 0, upright: false, sweep: false, breaks: { ...Engine.NO_BREAKS },
  };
  const network = (role) => (role === "ours" ? ours[state.taps] : baseline);
  const results = new Map(); // by what was computed: angle -> number of changed labels
  const shown = {}; // by role: what the panels show

  // What is computed ----------------------------------------------------------------------------------------------

  /** The program of a worker: it holds the networks of one role and keeps what does not depend on the angle. */
  function serve() {
    let networks = [];
    let kept = {};
    self.onmessage = ({ data: message }) => {
      if (message.networks) {
        networks = message.networks.map(({ weights, ...rest }) => Engine.readNetwork(rest, weights));
        return;
      }
      const { job, index, raw, side, degrees, breaks, key } = message;
      if (kept.key !== key) {
        kept = { key, ...Engine.prepare(raw, networks[index], side) };
        kept.upright = Engine.predict(networks[index], kept.disc, side, 0, kept.fill, breaks);
      }
      const { disc, fill, upright } = kept;
      const labels = degrees % 360 === 0 ? upright : Engine.predict(networks[index], disc, side, degrees, fill, breaks);
      self.postMessage({ job, upright, labels });
    };
  }

  const source = `${$("engine").textContent}\n(${serve})();`;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const workers = {};
  for (const role of roles) {
    const descriptions = role === "ours" ? data.networks : [data.baseline];
    workers[role] = new Worker(address);
    workers[role].onmessage = ({ data: answer }) => receive(role, answer);
    workers[role].onerror = (event) => say(`The worker stopped: ${event.message}`);
    workers[role].postMessage({
      networks: descriptions.map((each) => ({ ...each, weights: new Float32Array(Engine.decodeBytes(each.weights).buffer) })),
    });
  }

  /** What a result depends on, apart from the angle. The baseline has no group to break. */
  function keyOf(role) {
    const own = role === "ours" ? [state.taps, ...Object.values(state.breaks)] : [];
    return [role, state.image, ...own].join(" ");
  }

  let job = null;
  let wanted = false;
  let jobs = 0;

  /** Compute what is chosen now. While the workers are busy only the newest choice is kept. */
  function compute() {
    if (!images.length) return;
    if (job) {
      wanted = true;
      return;
    }
    wanted = false;
    const degrees = state.degrees % 360;
    job = { number: ++jobs, degrees, keys: {}, answers: {} };
    document.body.dataset.state = "busy";
    say(`computing ${degrees}°`);
    for (const role of roles) {
      const key = (job.keys[role] = keyOf(role));
      const index = role === "ours" ? state.taps : 0;
      const { raw } = images[state.image];
      workers[role].postMessage({ job: job.number, index, raw, side, degrees, breaks: { ...state.breaks }, key });
    }
  }

  function receive(role, answer) {
    if (!job || answer.job !== job.number) return;
    job.answers[role] = answer;
    if (Object.keys(job.answers).length < roles.length) return;
    const done = job;
    job = null;
    for (const each of roles) record(each, done);
    drawCurve();
    document.body.dataset.state = wanted ? "busy" : "idle";
    document.body.dataset.done = done.degrees;
    say("");
    if (wanted) compute();
    else if (state.sweep) sweepOn();
  }

  function record(role, { degrees, keys, answers }) {
    const { upright, labels } = answers[role];
    const changed = Uint8Array.from(labels, (label, at) => (compared[at] && label !== upright[at] ? 1 : 0));
    const count = changed.reduce((sum, each) => sum + each, 0);
    if (!results.has(keys[role])) results.set(keys[role], new Map());
    results.get(keys[role]).set(degrees, count);
    if (keys[role] !== keyOf(role)) return;
    shown[role] = { degrees, upright, labels, changed, count };
    drawPrediction(role);
  }

  function sweepOn() {
    const known = results.get(keyOf("ours")) ?? new Map();
    const other = baseline ? (results.get(keyOf("baseline")) ?? new Map()) : known;
    for (let step = 1; step <= 72; step++) {
      const degrees = (Math.floor(state.degrees / 5) * 5 + 5 * step) % 360;
      if (!known.has(degrees) || !other.has(degrees)) {
        setAngle(degrees);
        return;
      }
    }
    setSweep(false);
  }

  function setSweep(on) {
    state.sweep = on;
    $("sweep").setAttribute("aria-pressed", String(on));
    if (on && !job) sweepOn();
  }

  // How it is drawn -----------------------------------------------------------------------------------------------

  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const percent = (share) => `${(100 * share).toFixed(2)} %`;
  const small = (value) => (value === 0 ? "0" : value.toExponential(1));
  const whole = (value) => value.toLocaleString("en");

  function say(text) {
    $("status").textContent = text;
  }

  /** Draw a square of values; `shade` gives the grey level or [r, g, b] of a pixel. `top` marks the top of the image. */
  function paint(canvas, n, shade, { disc = true, top = null } = {}) {
    const zoom = Math.max(1, Math.round(512 / n));
    canvas.width = canvas.height = n * zoom;
    const small = new OffscreenCanvas(n, n);
    const pen = small.getContext("2d");
    const picture = pen.createImageData(n, n);
    for (let at = 0; at < n * n; at++) {
      const value = shade(at);
      const [r, g, b] = Array.isArray(value) ? value : [value, value, value];
      picture.data.set([r, g, b, 255], 4 * at);
    }
    pen.putImageData(picture, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    const half = canvas.width / 2;
    if (disc) {
      context.beginPath();
      context.arc(half, half, half - 2 * zoom, 0, 2 * Math.PI);
      context.clip();
    }
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (top === null) return;
    context.translate(half, half);
    context.rotate((-top * Math.PI) / 180);
    context.beginPath();
    context.moveTo(-22, -half);
    context.lineTo(22, -half);
    context.lineTo(0, -half + 40);
    context.closePath();
    context.fillStyle = "#ffffff";
    context.strokeStyle = "#000000";
    context.lineWidth = 3;
    context.fill();
    context.stroke();
  }

  /** Grey levels of a signed map: zero is mid-grey, `limit` is white. */
  function signed(map, limit) {
    return (at) => 128 + 127 * Math.max(-1, Math.min(1, map[at] / (limit || 1)));
  }

  function largest(map) {
    return map.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  }

  function drawImage() {
    const { raw } = images[state.image];
    const channels = raw.length / area;
    const top = Float32Array.from(raw).sort()[Math.floor(0.998 * (raw.length - 1))] || 1;
    const view = Engine.rotate(Engine.cutDisc(raw, side, Engine.medians(raw, side)), side, state.degrees);
    const level = (value) => 255 * Math.sqrt(Math.max(0, Math.min(1, value / top))); // so that dim nuclei are visible
    const colour = channels === 3;
    const shade = colour
      ? (at) => [view[at], view[area + at], view[2 * area + at]].map((value) => (255 * value) / top)
      : (at) => level(view[at]);
    paint($("image"), side, shade, { top: state.degrees });
    $("image").setAttribute("aria-label", `${images[state.image].name}, rotated by ${state.degrees} degrees`);
  }

  function drawPrediction(role) {
    const { degrees, upright, labels, changed, count } = shown[role];
    const { classes } = network(role);
    const grey = (label) => 40 + (215 * label) / (classes - 1);
    paint($(`labels-${role}`), side, (at) => grey(labels[at]), { top: 0 });
    const [from, to, mark] = dark.matches ? [40, 85, 255] : [242, 200, 0];
    const ground = (label) => from + ((to - from) * label) / (classes - 1);
    paint($(`changes-${role}`), side, (at) => (changed[at] ? mark : ground(upright[at])), { top: 0 });
    $(`count-${role}`).innerHTML =
      `<b>${whole(count)}</b> of ${whole(total)} labels changed at ${degrees}° (${percent(count / total)})`;
    $(`count-${role}`).dataset.count = count;
    $(`count-${role}`).dataset.angle = degrees;
    const title = `${network(role).title}: ${count} changed labels at ${degrees} degrees`;
    $(`changes-${role}`).setAttribute("aria-label", title);
  }

  function drawFacts() {
    for (const role of roles) {
      const { title, parameters, taps, elements } = network(role);
      const dial = role === "ours" && ours.length > 1 ? `, m = ${taps.length}` : "";
      const broken = role === "ours" && isBroken() ? ", broken" : "";
      $(`title-${role}`).textContent = title + dial + broken;
      const million = (Engine.multiplyAdds(network(role), side) / 1e6).toFixed(0);
      const group = elements.length > 1 ? ` ${elements.length} orientations,` : "";
      $(`facts-${role}`).textContent = `${group} ${whole(parameters)} weights, ${whole(Number(million))} million multiply-adds`.trim();
    }
  }

  function isBroken() {
    return Object.values(state.breaks).some(Boolean);
  }

  /** The element of the group that rotates by an angle, if there is one. */
  function elementAt(net, degrees) {
    return net.elements.findIndex(({ angle, reflects }) => !reflects && angle === degrees % 360);
  }

  function drawNote() {
    const { degrees } = state;
    const { group } = ours[state.taps];
    const exact = degrees % 90 === 0 && elementAt(ours[state.taps], degrees) >= 0;
    const name = `${degrees}°`;
    let text = `${name} is between the rotations of ${group} that permute pixels. The image is interpolated here, and no network promises anything: both may change labels.`;
    if (degrees % 90 === 0 && !exact) text = `${name} permutes the pixels, but it is not an element of ${group}: the network promises nothing here.`;
    if (exact) text = `${name} is an element of ${group}, and it permutes the pixels: nothing is interpolated. An equivariant network changes no label here, whatever its weights. What the baseline changes, it changes by itself.`;
    if (degrees % 360 === 0) text = "This is the upright image, which the others are compared with: nothing can have changed yet. Move the slider, with the mouse or with the arrow keys.";
    if (isBroken()) text += " The rule of the group convolution is broken now, so the promise is gone.";
    $("note").textContent = text;
  }

  function drawCurve() {
    const wide = Math.max(280, $("curve").clientWidth || 280);
    const narrow = wide < 520; // the names of the curves are one below the other
    const [left, right, top, bottom] = [48, 12, narrow ? 48 : 28, 34];
    const high = 210 + top;
    const series = roles.map((role) => {
      const points = [...(results.get(keyOf(role)) ?? new Map())].sort((a, b) => a[0] - b[0]);
      return { role, points: points.map(([degrees, count]) => [degrees, (100 * count) / total]) };
    });
    const most = Math.max(0.5, ...series.flatMap(({ points }) => points.map(([, share]) => share)));
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20].find((each) => most / each <= 5) ?? 25;
    const limit = step * Math.ceil(most / step);
    const x = (degrees) => left + ((wide - left - right) * degrees) / 360;
    const y = (share) => high - bottom - ((high - top - bottom) * share) / limit;
    const parts = [];
    for (let tick = 0; tick <= limit + step / 2; tick += step) {
      parts.push(`<line class="grid" x1="${left}" x2="${wide - right}" y1="${y(tick)}" y2="${y(tick)}"/>`);
      parts.push(`<text x="${left - 8}" y="${y(tick) + 4}" text-anchor="end">${Number(tick.toFixed(1))} %</text>`);
    }
    for (const degrees of [0, 90, 180, 270, 360]) {
      parts.push(`<line class="grid" x1="${x(degrees)}" x2="${x(degrees)}" y1="${top}" y2="${high - bottom}"/>`);
      parts.push(`<text x="${x(degrees)}" y="${high - bottom + 18}" text-anchor="middle">${degrees}°</text>`);
    }
    parts.push(`<line class="now" x1="${x(state.degrees)}" x2="${x(state.degrees)}" y1="${top}" y2="${high - bottom}"/>`);
    series.forEach(({ role, points }, place) => {
      const path = points.map(([degrees, share]) => `${x(degrees)},${y(share)}`).join(" L");
      if (points.length > 1) parts.push(`<path class="${role}" d="M${path}"/>`);
      const dot = (a, b) =>
        role === "ours"
          ? `<circle class="ours" cx="${a}" cy="${b}" r="3.5"/>`
          : `<rect class="baseline" x="${a - 4}" y="${b - 4}" width="8" height="8" stroke-width="2"/>`;
      for (const [degrees, share] of points) parts.push(dot(x(degrees), y(share)));
      const [at, line] = narrow ? [left, 10 + 18 * place] : [left + 220 * place, 10];
      const words = network(role).title + (role === "ours" ? ` (${isBroken() ? "broken, " : ""}filled)` : " (open)");
      parts.push(dot(at + 6, line), `<text class="name" x="${at + 18}" y="${line + 4}">${words}</text>`);
    });
    const title = "Share of changed labels by angle; the table below has the numbers";
    $("curve").innerHTML = `<svg viewBox="0 0 ${wide} ${high}" height="${high}" role="img" aria-label="${title}">${parts.join("")}</svg>`;
    const angles = [...new Set(series.flatMap(({ points }) => points.map(([degrees]) => degrees)))].sort((a, b) => a - b);
    const value = (points, degrees) => {
      const found = points.find(([each]) => each === degrees);
      return found ? `${found[1].toFixed(2)} %` : "";
    };
    const cells = (degrees) => series.map(({ points }) => `<td>${value(points, degrees)}</td>`).join("");
    const head = series.map(({ role }) => `<th>${network(role).title}</th>`).join("");
    $("table").innerHTML = `<tr><th>angle</th>${head}</tr>${angles.map((each) => `<tr><td>${each}°</td>${cells(each)}</tr>`).join("")}`;
  }

  // The first layer -------------------------------------------------------------------------------------------------

  const nameOf = ({ angle, reflects }) => `${Number(angle.toFixed(1))}°${reflects ? ", reflected" : ""}`;

  function drawMaps() {
    const net = ours[state.taps];
    const { elements, inverse, products } = net;
    const { disc, fill } = Engine.prepare(images[state.image].raw, net, side);
    const { field, breaks, degrees } = state;
    const rotated = Engine.rotate(disc, side, degrees, fill);
    const kernels = Engine.kernelCopies(net, field);
    const maps = Engine.lift(net, field, rotated, side);
    const before = Engine.lift(net, field, disc, side);
    const limit = 0.7 * Math.max(...before.map(largest));
    const counts = (at) => compared[at];
    const h = elementAt(net, degrees);
    const size = net.kernelSize;
    const taps = size * size;
    const kernelLimit = Math.max(...kernels.map(largest));
    let error = 0;
    elements.forEach((element, g) => {
      const kernel = kernels[g];
      const summed = Float32Array.from({ length: taps }, (_, s) => {
        let sum = 0;
        for (let at = s; at < kernel.length; at += taps) sum += kernel[at];
        return sum;
      });
      paint($(`kernel-${g}`), size, signed(summed, kernelLimit), { disc: false });
      const view = state.upright ? Engine.rotate(maps[g], side, -degrees) : maps[g];
      paint($(`map-${g}`), side, signed(view, limit), { top: state.upright ? 0 : degrees });
      let words = "between two elements";
      if (h >= 0) {
        const differences = before.map((map) => Engine.largestDifference(maps[g], Engine.act(elements[h], map, side), counts));
        error = Math.max(error, differences[products[inverse[h]][g]]);
        const place = differences.indexOf(Math.min(...differences));
        words = differences[place] < 1e-3 * limit ? `the map that was at ${nameOf(elements[place])}` : "no map that was there";
      }
      $(`map-words-${g}`).textContent = words;
      $(`map-${g}`).setAttribute("aria-label", `lifted map at ${nameOf(element)}: ${words}`);
    });
    $("maps-note").textContent =
      h < 0
        ? `${degrees}° is not an element of ${net.group}: no map is a rotated copy of one that was there before. Try a multiple of 90°.`
        : `At ${degrees}° the two sides of the equation above differ by at most ${small(error)} (the largest value of a map is ${largest(before[0]).toFixed(2)}).`;
    const [mean, average] = [Engine.mean(maps), Engine.groupAverage(net, field, rotated, side, breaks)];
    const exact = elements.every(({ angle }) => angle % 90 === 0);
    const most = Engine.largestDifference(mean, average, counts);
    paint($("mean"), side, signed(mean, limit / 2), { top: degrees });
    paint($("average"), side, signed(average, limit / 2), { top: degrees });
    paint($("difference"), side, signed(mean.map((value, at) => value - average[at]), limit / 2), { top: degrees });
    $("average-note").dataset.difference = most;
    $("average-note").textContent =
      `Largest difference: ${small(most)}, at ${degrees}°. ` +
      (breaks.inverse
        ? "Without the inverse the average rotates the image one way and the result another: it is no longer the mean of the maps."
        : exact
          ? "They are equal up to rounding at every angle of the slider: both see the same image, interpolated or not."
          : `Kernels of ${net.group} are rotated without interpolation, images are not: the two differ by that.`);
  }

  function buildMaps() {
    const net = ours[state.taps];
    $("maps").style.setProperty("--columns", Math.min(4, net.elements.length));
    $("maps").innerHTML = net.elements
      .map(
        (element, g) => `<figure><h4><i>g</i> = ${nameOf(element)}</h4>
          <canvas class="kernel" id="kernel-${g}" role="img" aria-label="kernel at ${nameOf(element)}"></canvas>
          <canvas id="map-${g}" role="img"></canvas><figcaption id="map-words-${g}"></figcaption></figure>`,
      )
      .join("");
    const fields = Array.from({ length: net.width }, (_, field) => [String(field), `${field + 1}`]);
    state.field = Math.min(state.field, net.width - 1);
    choices("field", fields.slice(0, 8), String(state.field), (value) => {
      state.field = Number(value);
      drawMaps();
    });
  }

  // What is chosen ----------------------------------------------------------------------------------------------------

  function choices(name, options, chosen, choose) {
    const box = $(`${name}-choices`);
    box.replaceChildren(
      ...options.map(([value, words]) => {
        const [label, input] = [document.createElement("label"), document.createElement("input")];
        Object.assign(input, { type: "radio", name, value, checked: value === chosen });
        input.addEventListener("change", () => choose(value));
        label.append(input, words);
        return label;
      }),
    );
  }

  function setAngle(degrees) {
    state.degrees = degrees;
    $("angle").value = degrees;
    $("angle").setAttribute("aria-valuetext", `${degrees} degrees`);
    $("angle-value").textContent = `${degrees}°`;
    for (const span of document.querySelectorAll(".angle-now")) span.textContent = `${degrees}°`;
    for (const button of document.querySelectorAll("button[data-angle]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.angle) === degrees % 360));
    }
    drawAngle();
    compute();
  }

  let frame = 0;

  /** Draw what depends on the angle and needs no worker, once for each frame of the screen. */
  function drawAngle() {
    if (frame || !images.length) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      drawImage();
      drawNote();
      drawCurve();
      drawMaps();
    });
  }

  function update() {
    drawFacts();
    drawAngle();
    compute();
  }

  function chooseImages() {
    const options = images.map(({ name }, at) => [String(at), name]);
    choices("image", options, String(state.image), (value) => {
      state.image = Number(value);
      update();
    });
  }

  /** Read the central square of a picture in the browser's own formats, scaled to the side of the page's images. */
  async function readFile(file) {
    const bitmap = await createImageBitmap(file);
    const square = Math.min(bitmap.width, bitmap.height);
    const pen = new OffscreenCanvas(side, side).getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, (bitmap.width - square) / 2, (bitmap.height - square) / 2, square, square, 0, 0, side, side);
    const { data: pixels } = pen.getImageData(0, 0, side, side);
    const raw = new Float32Array(ours[0].channels * area);
    for (let at = 0; at < area; at++) {
      const [r, g, b] = pixels.subarray(4 * at, 4 * at + 3);
      if (ours[0].channels === 1) raw[at] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
      else [raw[at], raw[area + at], raw[2 * area + at]] = [r, g, b];
    }
    return { name: file.name, raw };
  }

  $("angle").addEventListener("input", (event) => {
    setSweep(false);
    setAngle(Number(event.target.value));
  });
  for (const button of document.querySelectorAll("button[data-angle]")) {
    button.addEventListener("click", () => {
      setSweep(false);
      setAngle(Number(button.dataset.angle));
    });
  }
  $("sweep").addEventListener("click", () => setSweep(!state.sweep));
  $("upright").addEventListener("change", (event) => {
    state.upright = event.target.checked;
    drawAngle();
  });
  for (const name of Object.keys(state.breaks)) {
    $(`break-${name}`).addEventListener("change", (event) => {
      state.breaks[name] = event.target.checked;
      update();
    });
  }
  $("file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      images.push(await readFile(file));
    } catch {
      $("file-note").textContent = `The browser cannot read ${file.name}. It reads PNG, JPEG, WebP, GIF and BMP, but not TIFF.`;
      return;
    }
    state.image = images.length - 1;
    chooseImages();
    update();
  });
  dark.addEventListener("change", () => Object.keys(shown).forEach(drawPrediction));
  window.addEventListener("resize", drawCurve);

  $("compared").textContent = whole(total);
  $("taps").hidden = ours.length === 1;
  $("breaks").hidden = ours[0].elements.length === 1;
  if (![1, 3].includes(ours[0].channels)) {
    $("file").disabled = true;
    $("file-note").textContent = `The network takes ${ours[0].channels} channels, and a picture in a browser has 1 or 3.`;
  }
  if (!baseline) document.querySelector(".panels").classList.add("single");
  choices("tap", ours.map((net, at) => [String(at), String(net.taps.length)]), String(state.taps), (value) => {
    state.taps = Number(value);
    update();
  });
  chooseImages();
  buildMaps();
  drawFacts();
  setAngle(0);
})();
