"use strict";
// Asks whether the run has written something; shows the report again when it has, at the place where it was.
const frame = document.getElementById("report");
let shown = null;
async function look() {
  try {
    const state = await (await fetch("/state", { cache: "no-store" })).text();
    if (state !== shown) {
      const place = shown === null ? 0 : frame.contentWindow.scrollY;
      frame.onload = () => frame.contentWindow.scrollTo(0, place);
      frame.src = "/report?" + state;
      shown = state;
    }
  } catch (error) {
    document.title = "the server has ended";
  }
  setTimeout(look, EVERY);
}
look();
