// The heat map: a second picture over the whole image, with an opacity of its own, and its legend.

const find = (id) => document.getElementById(id);
const NAMES = { weight: "weight", contribution: "contribution to", probability: "probability" };

export class Heat {
  constructor(viewer, data, changed) {
    this.viewer = viewer;
    this.data = data;
    this.changed = changed;
    this.item = null;
    this.asked = ""; // the address of the picture that was asked for last
    find("kind").replaceChildren(...data.walk.heat.map((kind) => new Option(NAMES[kind], kind)));
    find("target").replaceChildren(...data.walk.classes.map((name, index) => new Option(name, index)));
    find("target").value = Math.max(0, data.walk.classes.indexOf(data.walk.label));
    for (const id of ["heat", "kind", "target"]) {
      find(id).addEventListener("change", () => this.update());
    }
    find("opacity").addEventListener("input", () => this.update());
  }

  get opacity() {
    return Number(find("opacity").value);
  }

  get state() {
    const on = find("heat").checked;
    return { heat: on ? find("kind").value : null, target: find("target").value, opacity: this.opacity };
  }

  set({ heat, target, opacity }) {
    find("heat").checked = heat !== null && this.data.walk.heat.includes(heat);
    if (find("heat").checked) {
      find("kind").value = heat;
    }
    if (target !== null && this.data.walk.classes[target] !== undefined) {
      find("target").value = target;
    }
    if (opacity >= 0 && opacity <= 1 && opacity !== null) {
      find("opacity").value = opacity;
    }
    this.update();
  }

  toggle() {
    find("heat").checked = !find("heat").checked;
    this.update();
  }

  update() {
    const kind = find("kind").value;
    const on = find("heat").checked;
    find("target").hidden = kind !== "contribution";
    find("legend").hidden = !on;
    const query = `?kind=${kind}&target=${find("target").value}`;
    const url = `/heat/${this.data.id}.png${query}`;
    if (on && url !== this.asked) {
      this.asked = url;
      this.explain(`/heat/${this.data.id}.json${query}`, url).then(() => this.load(url));
    }
    this.item?.setOpacity(on ? this.opacity : 0);
    this.changed();
  }

  // Say what the colours of the picture at an address mean. It is asked for afterwards: the server
  // makes the map for both, and two at once would take twice the memory.
  async explain(about, url) {
    const answer = await fetch(about);
    if (!answer.ok || url !== this.asked) {
      return; // another one was asked for meanwhile
    }
    const { title, ends, steps, colours } = await answer.json();
    const bar = find("legend-bar");
    bar.hidden = ends === null;
    bar.querySelector("i").style.background = `linear-gradient(90deg, ${colours.join()})`;
    if (ends) {
      [bar.firstElementChild.textContent, bar.lastElementChild.textContent] = ends;
    }
    find("legend-text").textContent = ends ? `${title}, ${steps}` : "nothing was looked at closer";
  }

  load(url) {
    if (url !== this.asked) {
      return;
    }
    this.viewer.addSimpleImage({
      url,
      opacity: this.opacity,
      success: ({ item }) => {
        if (url !== this.asked) {
          this.viewer.world.removeItem(item); // another one was asked for meanwhile
          return;
        }
        if (this.item) {
          this.viewer.world.removeItem(this.item);
        }
        this.item = item;
        item.setOpacity(find("heat").checked ? this.opacity : 0);
      },
    });
  }
}
