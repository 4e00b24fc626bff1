// The permalink: what is seen, in the part of the address after #. The server never sees it.

export function read() {
  const said = new URLSearchParams(location.hash.slice(1));
  const numbers = (said.get("view") ?? "").split(",").map(Number);
  const glimpse = Number.parseInt(said.get("glimpse") ?? "", 10);
  const hidden = (said.get("hidden") ?? "").split(",").filter(Boolean).map(Number);
  return {
    view: numbers.length === 3 && numbers.every(Number.isFinite) && numbers[2] > 0 ? numbers : null,
    glimpse: Number.isInteger(glimpse) && glimpse > 0 ? glimpse - 1 : null,
    hidden: hidden.filter(Number.isInteger),
    heat: said.get("heat"),
    target: said.get("class"),
    opacity: said.has("opacity") ? Number(said.get("opacity")) : null,
  };
}

export function write({ view, glimpse, hidden, heat, target, opacity }) {
  const said = new URLSearchParams();
  said.set("view", view.map((value) => Number(value.toPrecision(7))).join(","));
  if (glimpse !== null) {
    said.set("glimpse", glimpse + 1);
  }
  if (hidden.length) {
    said.set("hidden", hidden.join(","));
  }
  if (heat) {
    said.set("heat", heat);
    said.set("class", target);
    said.set("opacity", opacity);
  }
  history.replaceState(null, "", `#${said.toString().replaceAll("%2C", ",")}`);
}
