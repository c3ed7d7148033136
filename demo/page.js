// Keys of the page: Ctrl+Enter presses the visible button that runs, Escape the one that stops.
document.addEventListener("keydown", (event) => {
  const wanted = event.key === "Escape" ? ".stop-job" : event.key === "Enter" && (event.ctrlKey || event.metaKey) ? ".run-job" : null;
  if (!wanted) return;
  const button = [...document.querySelectorAll(wanted)].find((one) => one.offsetParent !== null && !one.disabled);
  if (button) { event.preventDefault(); button.click(); }
});
