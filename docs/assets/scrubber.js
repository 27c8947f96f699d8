// Turns the still picture of a training, img.scrubber, into frames and curves to step through.
//
// docs/figures/scrubber.py writes the picture NAME.png, and next to it NAME.webp, the sheet of all
// frames, and NAME.json, the curves. Where one of them is missing, the still picture stays.
{
  const TEXTS = {
    en: {
      play: "Play",
      pause: "Pause",
      slider: "Iteration",
      step: (step) => `iteration ${step.toLocaleString("en")}`,
      curves: { wasserstein: "Wasserstein estimate", gradient_norm: "gradient norm" },
    },
    zh: {
      play: "播放",
      pause: "暂停",
      slider: "迭代次数",
      step: (step) => `第 ${step.toLocaleString("en")} 次迭代`,
      curves: { wasserstein: "Wasserstein 估计", gradient_norm: "梯度范数" },
    },
  };
  const INTERVAL = 300; // milliseconds of a frame while playing
  // A curve's picture: its size, and the area that the curve takes.
  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 125, 38, 326, 8, 105];

  function add(parent, tag, attributes = {}, text = "") {
    const svg = "http://www.w3.org/2000/svg";
    const isHtml = parent.namespaceURI !== svg && tag !== "svg";
    const element = isHtml ? document.createElement(tag) : document.createElementNS(svg, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return parent.appendChild(element);
  }

  // Round numbers from low to high, at most six.
  function ticks(low, high) {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, place) => (first + place) * step);
  }

  // Adds a curve. Returns a function that moves its marker to an iteration.
  function addCurve(parent, title, steps, values, end, go) {
    const label = add(parent, "p", {}, `${title} `), number = add(label, "strong");
    const svg = add(parent, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": true });
    const low = Math.min(0, ...values), high = Math.max(...values, low + 1e-9);
    const x = (step) => LEFT + (step / end) * (RIGHT - LEFT);
    const y = (value) => BOTTOM - ((value - low) / (high - low)) * (BOTTOM - TOP);
    for (const value of ticks(low, high)) {
      add(svg, "line", { x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) });
      add(svg, "text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, +value.toPrecision(3));
    }
    for (const step of ticks(0, end)) {
      add(svg, "text", { x: x(step), y: HEIGHT - 4, "text-anchor": "middle" }, step);
    }
    const points = steps.map((step, place) => `${x(step)},${y(values[place])}`);
    add(svg, "polyline", { points: points.join(" ") });
    const line = add(svg, "line", { y1: TOP, y2: BOTTOM, class: "scrubber-marker" });
    const dot = add(svg, "circle", { r: 4 });

    const follow = (event) => {
      const area = svg.getBoundingClientRect();
      const place = ((event.clientX - area.left) / area.width) * WIDTH;
      go(((place - LEFT) / (RIGHT - LEFT)) * end);
    };
    svg.addEventListener("pointerdown", (event) => {
      svg.setPointerCapture(event.pointerId); // so that it may leave the curve
      follow(event);
    });
    svg.addEventListener("pointermove", (event) => event.buttons && follow(event));

    return (step) => {
      // the newest record; there is none before the first iteration
      const place = steps.filter((other) => other <= step).length - 1;
      line.setAttribute("x1", x(step));
      line.setAttribute("x2", x(step));
      dot.toggleAttribute("hidden", place < 0);
      dot.setAttribute("cx", x(steps[Math.max(place, 0)]));
      dot.setAttribute("cy", y(values[Math.max(place, 0)]));
      number.textContent = place < 0 ? "–" : values[place].toFixed(2);
    };
  }

  function build(picture, sheet, { frames, columns, curves }) {
    const texts = TEXTS[document.documentElement.lang] || TEXTS.en;
    const box = document.createElement("div"), last = frames.length - 1;
    box.className = "scrubber-box";
    const control = add(box, "div", { class: "scrubber-control" });
    const play = add(control, "button", { type: "button" }, texts.play);
    const range = { type: "range", min: 0, max: last, "aria-label": texts.slider };
    const slider = add(control, "input", range), output = add(control, "output", { "aria-live": "off" });
    const frame = add(box, "div", { class: "scrubber-frame", role: "img" });
    const rows = Math.ceil(frames.length / columns);
    frame.style.aspectRatio = `${sheet.naturalWidth / columns} / ${sheet.naturalHeight / rows}`;
    frame.style.backgroundImage = `url("${sheet.src}")`;
    frame.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    const side = add(box, "div", { class: "scrubber-curves" });
    let timer = null;

    const markers = Object.entries(curves).map(([name, [steps, values]]) => {
      const go = (step) => {
        const distances = frames.map((other) => Math.abs(other - step));
        stop();
        show(distances.indexOf(Math.min(...distances)));
      };
      const title = texts.curves[name] || name;
      return addCurve(add(side, "div"), title, steps, values, frames[last], go);
    });

    function show(place) {
      const column = place % columns, row = Math.floor(place / columns);
      const percent = (part, count) => (count > 1 ? (100 * part) / (count - 1) : 0);
      frame.style.backgroundPosition = `${percent(column, columns)}% ${percent(row, rows)}%`;
      slider.value = place;
      output.textContent = texts.step(frames[place]);
      slider.setAttribute("aria-valuetext", output.textContent);
      frame.setAttribute("aria-label", output.textContent);
      for (const move of markers) move(frames[place]);
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = texts.play;
    }

    function advance() {
      const place = Number(slider.value) + 1;
      show(place);
      if (place === last) stop();
    }

    play.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(slider.value) === last) show(0);
      play.textContent = texts.pause;
      timer = setInterval(advance, INTERVAL);
    });
    slider.addEventListener("input", () => {
      stop();
      show(Number(slider.value));
    });
    show(last);
    picture.parentElement.hidden = true; // its paragraph, where it stands alone
    picture.parentElement.after(box);
  }

  async function start(picture) {
    if (picture.parentElement.hidden) return;
    const sheet = new Image();
    sheet.src = picture.src.replace(/\.png$/, ".webp");
    const answer = await fetch(picture.src.replace(/\.png$/, ".json"));
    const data = await answer.json();
    await sheet.decode();
    build(picture, sheet, data);
  }

  document$.subscribe(({ body }) => body.querySelectorAll("img.scrubber").forEach(start));
}
