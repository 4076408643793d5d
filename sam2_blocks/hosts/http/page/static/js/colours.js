// A colour a class; neighbours differ for people who see colours differently, too.
// Source: Okabe and Ito, "Color Universal Design", with two more.

const COLOURS = [
  [0, 158, 235],
  [240, 150, 20],
  [10, 175, 125],
  [225, 110, 185],
  [225, 85, 40],
  [235, 215, 60],
  [120, 110, 235],
  [90, 200, 235],
  [160, 110, 60],
];

export function colourOf(classes, className) {
  return COLOURS[Math.max(0, classes.indexOf(className)) % COLOURS.length];
}

export function toCss([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}
