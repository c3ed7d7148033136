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
// How often a strength was taken and let go: odd while one is moved (demo/page/live.py). Listeners that capture hear of it
// before the sliders do, so that these tell their moves with the number that belongs to it.
window.mgPhase = 0;
let moved;
const turn = (isMoved) => {
  if (isMoved === (window.mgPhase % 2 === 1)) return;
  window.mgPhase += 1;
  document.querySelector("button#turned, #turned button")?.click();
};
const letGo = (event) => {
  if (!moved || window.mgPhase % 2 === 0) return;
  turn(false);
  if (event.type !== "pointerup" || event.target !== moved) moved.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
};
document.addEventListener("input", (event) => {
  if (!event.target.closest?.("#color-scale, #texture-scale, #shape-scale")) return;
  moved = event.target;
  turn(true);
}, true);
document.addEventListener("pointerup", letGo, true);
document.addEventListener("pointercancel", letGo, true);
document.addEventListener("blur", (event) => { if (event.target === moved && moved.type === "number") turn(false); }, true);
