// The page of one image: opens it, and ties boxes, heat map, panel, keys and address together.

import * as address from "./address.js";
import { Boxes } from "./boxes.js";
import { placement, rectangle, scaleBar } from "./geometry.js";
import { Heat } from "./heat.js";
import { levelName, showGlimpse, showImage, showVerdict } from "./panel.js";

const STEP = 1600; // milliseconds a glimpse while the walk is played
const AROUND = 1.2; // how much around a glimpse is shown, in parts of its side
const find = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;

function tileSource(data) {
  return {
    width: data.width,
    height: data.height,
    tileSize: data.tile,
    minLevel: 0,
    maxLevel: data.last_level,
    getTileUrl: (level, column, row) =>
      data.problem === null ? `/tile/${data.id}/${level}/${column}_${row}.jpg` : "/static/blank.svg",
  };
}

function openViewer(data) {
  return new OpenSeadragon.Viewer({
    element: find("stage"),
    tileSources: tileSource(data),
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: false,
    animationTime: still ? 0 : 0.9,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    maxZoomPixelRatio: 8,
    minZoomImageRatio: 0.6,
    visibilityRatio: 0.2,
    imageLoaderLimit: 6,
    crossOriginPolicy: false,
  });
}

class Page {
  constructor(data) {
    this.data = data;
    this.viewer = openViewer(data);
    this.boxes = null;
    this.heat = null;
    this.timer = null;
    showImage(data);
    this.viewer.addHandler("update-viewport", () => this.drawScale());
    this.viewer.addOnceHandler("open", () => this.opened());
    for (const [id, act] of Object.entries({
      "zoom-in": () => this.viewer.viewport.zoomBy(1.6),
      "zoom-out": () => this.viewer.viewport.zoomBy(1 / 1.6),
      home: () => this.viewer.viewport.goHome(),
      copy: () => this.copyLink(),
      keys: () => find("help").showModal(),
    })) {
      find(id).addEventListener("click", act);
    }
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  opened() {
    if (this.data.walk) {
      this.openWalk();
    }
    this.follow();
    this.viewer.addHandler("animation-finish", () => this.remember());
    window.addEventListener("hashchange", () => this.follow());
    document.body.dataset.ready = "true";
  }

  openWalk() {
    const { data, viewer } = this;
    for (const part of document.querySelectorAll(".walk")) {
      part.hidden = false;
    }
    showVerdict(data.walk);
    this.boxes = new Boxes(viewer, data);
    this.heat = new Heat(viewer, data, () => this.remember());
    find("levels").replaceChildren(...data.walk.levels.map((level) => this.levelButton(level)));
    find("play").addEventListener("click", () => this.play());
    find("next").addEventListener("click", () => this.step(1));
    find("previous").addEventListener("click", () => this.step(-1));
    viewer.addHandler("canvas-click", (event) => {
      if (event.quick) {
        this.stop();
        this.choose(this.boxes.at(event.position));
      }
    });
  }

  levelButton({ level, colour }) {
    const count = this.data.walk.glimpses.filter((glimpse) => glimpse.level === level).length;
    const button = document.createElement("button");
    button.dataset.level = level;
    const swatch = document.createElement("i");
    swatch.style.background = colour;
    button.append(swatch, level === 0 ? levelName(0) : `${levelName(level)} (${count})`);
    button.title = `show or hide ${levelName(level)} (${level})`;
    button.addEventListener("click", () => this.toggleLevels([level]));
    return button;
  }

  toggleLevels(levels) {
    const { hidden } = this.boxes;
    const hide = levels.some((level) => !hidden.has(level));
    levels.forEach((level) => (hide ? hidden.add(level) : hidden.delete(level)));
    this.showLevels();
    this.remember();
  }

  showLevels() {
    for (const button of find("levels").children) {
      const shown = !this.boxes.hidden.has(Number(button.dataset.level));
      button.setAttribute("aria-pressed", shown);
    }
    this.boxes.show();
  }

  choose(index, move = false) {
    this.boxes.chosen = index;
    this.boxes.show();
    showGlimpse(this.data, index);
    if (move && index !== null) {
      const { region, level } = this.data.walk.glimpses[index];
      this.viewer.viewport.fitBounds(rectangle(region, this.data, level ? AROUND : 0.02), still);
    }
    this.remember();
  }

  step(by) {
    this.stop();
    const total = this.data.walk.glimpses.length;
    const from = this.boxes.chosen ?? (by > 0 ? -1 : total);
    this.choose((from + by + total) % total, true);
  }

  // Show the walk as it was made: one glimpse after the other, each box when it is reached.
  play() {
    if (this.timer !== null) {
      this.stop();
      return;
    }
    const last = this.data.walk.glimpses.length - 1;
    const from = this.boxes.chosen ?? -1;
    let next = from >= last ? 0 : from + 1;
    const advance = () => {
      this.boxes.until = next;
      this.choose(next, true);
      next += 1;
      if (next > last) {
        this.stop();
      }
    };
    find("play").textContent = "pause";
    this.timer = setInterval(advance, STEP);
    advance();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    find("play").textContent = "play";
    this.boxes.until = Infinity;
    this.boxes.show();
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) {
      return;
    }
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
    const pressing = event.target.tagName === "BUTTON" && event.key === " ";
    const act = typing || pressing ? undefined : this.action(event.key);
    if (act) {
      event.preventDefault();
      event.stopPropagation();
      act();
    }
  }

  action(key) {
    const general = {
      f: () => this.viewer.viewport.goHome(),
      "?": () => find("help").showModal(),
    };
    const ofWalk = {
      n: () => this.step(1),
      p: () => this.step(-1),
      " ": () => this.play(),
      h: () => this.heat.toggle(),
      b: () => this.toggleLevels(this.data.walk.levels.map(({ level }) => level)),
      Escape: () => this.choose(null),
    };
    const name = key.length === 1 ? key.toLowerCase() : key;
    if (this.boxes && this.data.walk.levels.some(({ level }) => String(level) === name)) {
      return () => this.toggleLevels([Number(name)]);
    }
    return general[name] ?? (this.boxes ? ofWalk[name] : undefined);
  }

  drawScale() {
    const { scale } = placement(this.viewer, this.data);
    const bar = scaleBar(scale, this.data, 180);
    find("scale").hidden = bar === null;
    if (bar) {
      find("scale-bar").style.width = `${bar.across}px`;
      find("scale-text").textContent = bar.text;
    }
  }

  // Bring the page to what the address says.
  follow() {
    const said = address.read();
    if (this.boxes) {
      const levels = this.data.walk.levels.map(({ level }) => level);
      this.boxes.hidden = new Set(said.hidden.filter((level) => levels.includes(level)));
      this.showLevels();
      const there = said.glimpse !== null && said.glimpse < this.data.walk.glimpses.length;
      this.boxes.chosen = there ? said.glimpse : null;
      this.boxes.show();
      showGlimpse(this.data, this.boxes.chosen);
      this.heat.set(said);
    }
    if (said.view) {
      const [x, y, across] = said.view;
      const { x: wide, y: high } = this.viewer.viewport.getContainerSize();
      const down = (across * high) / wide;
      const region = [x - across / 2, y - down / 2, across, down];
      this.viewer.viewport.fitBounds(rectangle(region, this.data), true);
    }
  }

  // Keep in the address what is seen: the view's centre and width in pixels of level 0.
  remember() {
    const bounds = this.viewer.viewport.getBoundsNoRotate();
    const centre = bounds.getCenter();
    const unit = this.data.width;
    const layers = this.heat ? this.heat.state : { heat: null };
    address.write({
      view: [centre.x * unit, centre.y * unit, bounds.width * unit],
      glimpse: this.boxes ? this.boxes.chosen : null,
      hidden: this.boxes ? [...this.boxes.hidden] : [],
      ...layers,
    });
  }

  async copyLink() {
    this.remember();
    try {
      await navigator.clipboard.writeText(location.href);
      this.say("The link is copied. It works in this browser as long as the viewer runs.");
    } catch {
      this.say("The browser does not let pages copy; the link stands in its address bar.");
    }
  }

  say(sentence) {
    const said = find("said");
    said.textContent = sentence;
    said.hidden = false;
    setTimeout(() => (said.hidden = true), 4000);
  }
}

async function start() {
  const id = location.pathname.split("/").pop();
  const answer = await fetch(`/data/${id}.json`);
  if (!answer.ok) {
    find("problem").hidden = false;
    find("problem").textContent = "This image cannot be shown; the terminal may say why.";
    return;
  }
  new Page(await answer.json());
}

start();
