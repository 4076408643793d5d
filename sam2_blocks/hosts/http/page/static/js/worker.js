// Paints masks beside the page, so that a large one does not hold up the pointer.

import { paint } from "./paint.js";

self.addEventListener("message", async ({ data: { id, mask, rgb } }) => {
  const painted = paint(mask, rgb);
  if (!painted) {
    self.postMessage({ id, painted: null });
    return;
  }
  const { pixels, ...rest } = painted;
  const bitmap = await createImageBitmap(pixels);
  self.postMessage({ id, painted: { bitmap, ...rest } }, [bitmap]);
});
