"use strict";
// Runs first: whatever goes wrong later is counted, and page.js says so at the foot of the page.
window.problems = [];
{
  const record = (what) => window.problems.push(String(what));
  addEventListener("error", (event) => record(event.message || "a resource did not load"), true);
  addEventListener("unhandledrejection", (event) => record(event.reason));
  addEventListener("securitypolicyviolation", (event) => record(`refused: ${event.violatedDirective}`));
  const print = console.error;
  console.error = (...words) => { record(words.join(" ")); print.apply(console, words); };
}
