// Keys of the page: Ctrl+Enter presses the visible button that runs, Escape the one that stops.
document.addEventListener("keydown", (event) => {
  const wanted = event.key === "Escape" ? ".stop-job" : event.key === "Enter" && (event.ctrlKey || event.metaKey) ? ".run-job" : null;
  if (!wanted) return;
  const button = [...document.querySelectorAll(wanted)].find((one) => one.offsetParent !== null && !one.disabled);
  if (button) { event.preventDefault(); button.click(); }
});
// Sliders tell that they were released when a pointer leaves them; keys that move one do it, too, once they rest.
let resting;
document.addEventListener("keyup", (event) => {
  if (event.target.type !== "range" || !/^(Arrow|Page|Home|End)/.test(event.key)) return;
  clearTimeout(resting);
  resting = setTimeout(() => event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true })), 400);
});
