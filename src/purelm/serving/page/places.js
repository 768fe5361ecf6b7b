// Where in a text the pointer is.

/** The number of characters of `box` before the place of a pointer event; null where the browser cannot tell. */
export function offsetAt(box, event) {
  const place = document.caretPositionFromPoint?.(event.clientX, event.clientY);
  const old = place ? null : document.caretRangeFromPoint?.(event.clientX, event.clientY);
  const node = place?.offsetNode ?? old?.startContainer, inside = place?.offset ?? old?.startOffset;
  if (!node || !box.contains(node)) return null;
  const range = document.createRange();
  range.setStart(box, 0);
  range.setEnd(node, inside);
  return range.toString().length;
}
