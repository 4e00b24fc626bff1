// The glimpses' boxes, drawn over the image as SVG; a box too small to be seen has a ring.

import { placement } from "./geometry.js";

const SVG = "http://www.w3.org/2000/svg";
const SMALL = 14; // pixels of the screen
const REACH = 12;

function element(name, parent, classes) {
  const made = document.createElementNS(SVG, name);
  made.setAttribute("class", classes);
  parent.append(made);
  return made;
}

export class Boxes {
  constructor(viewer, data) {
    this.viewer = viewer;
    this.data = data;
    this.glimpses = data.walk.glimpses;
    this.hidden = new Set(); // levels
    this.until = Infinity; // index of the last glimpse that is shown, while the walk is played
    this.chosen = null;
    this.svg = element("svg", viewer.canvas, "boxes");
    const colours = new Map(data.walk.levels.map(({ level, colour }) => [level, colour]));
    this.frames = element("g", this.svg, "frames");
    this.rings = element("g", this.svg, "rings");
    this.marks = this.glimpses.map((glimpse, index) => this.mark(glimpse, index, colours));
    viewer.addHandler("update-viewport", () => this.place());
  }

  mark(glimpse, index, colours) {
    const group = element("g", this.frames, "box");
    group.dataset.glimpse = index;
    const [x, y, width, height] = glimpse.region;
    for (const name of ["halo", "line"]) {
      const rect = element("rect", group, name);
      for (const [key, value] of Object.entries({ x, y, width, height })) {
        rect.setAttribute(key, value);
      }
    }
    const ring = element("circle", this.rings, "ring");
    ring.setAttribute("r", SMALL / 2 + 1);
    for (const part of [group, ring]) {
      part.setAttribute("stroke", colours.get(glimpse.level));
    }
    return { group, ring };
  }

  isShown(index) {
    return index <= this.until && !this.hidden.has(this.glimpses[index].level);
  }

  // Put everything where the image is now.
  place() {
    const { scale, x, y } = placement(this.viewer, this.data);
    this.frames.setAttribute("transform", `translate(${x} ${y}) scale(${scale})`);
    this.glimpses.forEach(({ region }, index) => {
      const { ring } = this.marks[index];
      const small = Math.max(region[2], region[3]) * scale < SMALL;
      ring.classList.toggle("off", !small);
      if (small) {
        ring.setAttribute("cx", x + (region[0] + region[2] / 2) * scale);
        ring.setAttribute("cy", y + (region[1] + region[3] / 2) * scale);
      }
    });
  }

  // Show what shall be seen: levels, how far the walk was played, and which glimpse is chosen.
  show() {
    this.marks.forEach(({ group, ring }, index) => {
      for (const part of [group, ring]) {
        part.classList.toggle("gone", !this.isShown(index));
        part.classList.toggle("chosen", index === this.chosen);
      }
    });
    if (this.chosen !== null) {
      this.frames.append(this.marks[this.chosen].group);
      this.rings.append(this.marks[this.chosen].ring);
    }
    this.place();
  }

  // The smallest shown glimpse at a point of the stage, or null.
  at(point) {
    const { scale, x, y } = placement(this.viewer, this.data);
    const found = this.glimpses
      .map((glimpse, index) => ({ index, region: glimpse.region }))
      .filter(({ index, region }) => {
        const across = Math.abs(point.x - x - (region[0] + region[2] / 2) * scale);
        const down = Math.abs(point.y - y - (region[1] + region[3] / 2) * scale);
        const [wide, high] = [region[2], region[3]].map((side) =>
          Math.max((side * scale) / 2, side * scale < SMALL ? REACH : 0),
        );
        return this.isShown(index) && across <= wide && down <= high;
      })
      .sort((a, b) => a.region[2] * a.region[3] - b.region[2] * b.region[3]);
    return found.length ? found[0].index : null;
  }
}
