// Where things lie on the screen: between pixels of the image's level 0 and those of the stage.

const NICE = [1, 2, 5];

// How the image lies on the stage now: screen = offset + scale * image.
export function placement(viewer, data) {
  const bounds = viewer.viewport.getBoundsNoRotate(true);
  const size = viewer.viewport.getContainerSize();
  const perUnit = size.x / bounds.width; // OpenSeadragon's unit is the image's width
  return {
    scale: perUnit / data.width,
    x: -bounds.x * perUnit,
    y: -bounds.y * perUnit,
  };
}

// A region as OpenSeadragon wants it, with a margin in parts of its own size.
export function rectangle(region, data, margin = 0) {
  const [x, y, width, height] = region;
  const unit = data.width;
  return new OpenSeadragon.Rect(
    (x - margin * width) / unit,
    (y - margin * height) / unit,
    (width * (1 + 2 * margin)) / unit,
    (height * (1 + 2 * margin)) / unit,
  );
}

// The longest of 1, 2 or 5 times a power of ten that is not longer than `most`.
export function niceLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return Math.max(...NICE.filter((step) => step * power <= most * (1 + 1e-9))) * power;
}

const UNITS = [
  [1e3, "km"],
  [1, "m"],
  [1e-3, "mm"],
  [1e-6, "µm"],
  [1e-9, "nm"],
];

function unitOf(length) {
  return UNITS.find(([least]) => length >= least * (1 - 1e-9)) ?? UNITS.at(-1);
}

// Text for a length in metres; in pixels where the size of a pixel isn't known.
export function lengthText(length, known) {
  if (!known) {
    return `${length} px`;
  }
  const [size, name] = unitOf(length);
  return `${Number((length / size).toPrecision(3))} ${name}`;
}

// Text for the sides of a rectangle in metres.
export function areaText(width, height) {
  const [size, name] = unitOf(Math.max(width, height));
  const sides = [width, height].map((side) => Number((side / size).toPrecision(3)));
  return `${sides.join(" × ")} ${name}`;
}

// The scale bar: its length on the screen and its text.
export function scaleBar(perPixel, data, room) {
  const metre = data.metres ? data.metres[0] : 1;
  const length = niceLength((room / perPixel) * metre);
  if (!data.metres && length < 1) {
    return null;
  }
  return { across: (length / metre) * perPixel, text: lengthText(length, Boolean(data.metres)) };
}
