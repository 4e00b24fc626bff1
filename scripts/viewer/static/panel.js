// The column beside the image: the prediction, the chosen glimpse and its numbers.
// All text goes in as text: a file's or a class's name is never markup.

import { areaText } from "./geometry.js";

const MOST_CLASSES = 6;
const find = (id) => document.getElementById(id);

export function percent(share) {
  const value = share * 100;
  if (value > 99.9 && value < 100) {
    return "> 99.9 %";
  }
  return `${value >= 10 ? value.toFixed(1) : Number(value.toPrecision(2))} %`;
}

function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
}

function made(name, text = "", classes = "") {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = classes;
  return element;
}

function pairs(list, values) {
  list.replaceChildren(
    ...values
      .filter(([, value]) => value !== null)
      .flatMap(([name, value]) => [made("dt", name), made("dd", value)]),
  );
}

export function levelName(level) {
  return level === 0 ? "first look" : `level ${level}`;
}

function millions(count) {
  const [size, name] = count >= 1e9 ? [1e9, " Gpx"] : count >= 1e5 ? [1e6, " Mpx"] : [1, " px"];
  return `${Number((count / size).toPrecision(3))}${name}`;
}

// A bar for a value: from the left, or from the middle to the left or right if it has a sign.
function bar(share, isSigned) {
  const made_ = made("span", "", isSigned ? "bar signed" : "bar");
  const fill = made("i", "", share < 0 ? "against" : "");
  const width = Math.min(Math.abs(share), 1) * (isSigned ? 50 : 100);
  fill.style.width = `${width}%`;
  fill.style.left = isSigned ? `${share < 0 ? 50 - width : 50}%` : "0";
  made_.append(fill);
  return made_;
}

function table(into, rows, isSigned) {
  const shown = rows.slice(0, MOST_CLASSES);
  into.replaceChildren(
    ...shown.map(({ name, share, text, main }) => {
      const row = made("p", "", main ? "value main" : "value");
      row.append(made("span", name, "name"), bar(share, isSigned), made("span", text, "number"));
      return row;
    }),
  );
  if (rows.length > shown.length) {
    into.append(made("p", `and ${rows.length - shown.length} more classes`, "sub"));
  }
}

export function showImage(data) {
  document.title = `${data.title} - TNet viewer`;
  find("title").textContent = data.title;
  find("problem").hidden = data.problem === null;
  find("problem").textContent = data.problem ?? "";
  const size = `${data.width} × ${data.height} px (${millions(data.width * data.height)})`;
  const facts = [
    ["image", size],
    ["pixel", data.metres && areaText(...data.metres)],
    ["format", data.format],
  ];
  if (data.walk) {
    const { glimpses, pixels, share, seconds } = data.walk.cost;
    facts.push(
      ["looked at", `${glimpses} glimpses, ${millions(pixels)}, ${percent(share)} of the image`],
      ["time", `${Number(seconds.toPrecision(2))} s`],
      ["model", data.walk.model || null],
    );
  }
  pairs(find("about"), facts);
  find("notes").replaceChildren(...data.notes.map((note) => made("li", note)));
}

export function showVerdict(walk) {
  const order = walk.classes.map((_, index) => index);
  const known = walk.probabilities.every((value) => value !== null);
  order.sort((a, b) => walk.probabilities[b] - walk.probabilities[a]);
  const best = order[0];
  const sure = walk.label === null ? "" : percent(walk.probabilities[best]);
  const verdict = find("verdict");
  verdict.replaceChildren(walk.label ?? walk.outcome, " ", made("span", sure, "sure"));
  const rows = order.map((index) => ({
    name: walk.classes[index],
    share: walk.probabilities[index],
    text: percent(walk.probabilities[index]),
    main: index === best,
  }));
  table(find("classes"), known ? rows : [], false);
}

export function showGlimpse(data, index) {
  find("chosen").hidden = index === null;
  find("hint").hidden = index !== null;
  const total = data.walk.glimpses.length;
  find("where").textContent = index === null ? `${total} glimpses` : `${index + 1} of ${total}`;
  find("glimpse-title").textContent = index === null ? "A glimpse" : `Glimpse ${index + 1}`;
  if (index === null) {
    return;
  }
  const glimpse = data.walk.glimpses[index];
  const crop = find("crop");
  crop.src = `/crop/${data.id}/${index}.png`;
  crop.hidden = data.problem !== null;
  crop.alt = `what the model saw in glimpse ${index + 1}`;
  crop.parentElement.hidden = crop.hidden;
  find("crop-text").textContent = `as seen, ${data.walk.view.join(" × ")} px`;
  find("inset-figure").hidden = !glimpse.inset;
  if (glimpse.inset) {
    find("inset").src = `/inset/${data.id}/${index}.png`;
    find("inset").alt = `${data.walk.insets.title} inside glimpse ${index + 1}`;
    find("inset-text").textContent = data.walk.insets.title;
    find("inset-figure").title = data.walk.insets.colours;
  }
  pairs(find("numbers"), numbers(data, glimpse));
  showContributions(data.walk, glimpse);
}

function numbers(data, glimpse) {
  const [x, y, width, height] = glimpse.region;
  const round = (value) => String(Number(value.toFixed(1)));
  const metres = data.metres;
  const parent = glimpse.parent === null ? null : `glimpse ${glimpse.parent + 1}`;
  return [
    ["level", String(glimpse.level)],
    ["probability", glimpse.parent === null ? null : percent(glimpse.probability)],
    ["weight", percent(glimpse.weight)],
    ["inside", parent],
    ["x, y", `${round(x)}, ${round(y)}`],
    ["size", `${round(width)} × ${round(height)} px`],
    ["", metres && areaText(width * metres[0], height * metres[1])],
  ];
}

function showContributions(walk, glimpse) {
  const all = walk.glimpses.flatMap((each) => each.contributions.map(Math.abs));
  const most = all.reduce((a, b) => Math.max(a, b), 0) || 1;
  const rows = glimpse.contributions.map((value, index) => ({
    name: walk.classes[index],
    share: value / most,
    text: signed(value),
    main: walk.classes[index] === walk.label,
  }));
  rows.sort((a, b) => Math.abs(b.share) - Math.abs(a.share));
  table(find("contributions"), rows, true);
  find("fused").hidden = walk.additive;
}
