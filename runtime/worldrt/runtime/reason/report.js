"use strict";
const video = document.querySelector("video");
const boxes = [...document.querySelectorAll("#overlay .box")];
const trial = document.querySelector("#trial");
const SLACK = 0.04;  // seconds: a frame is on until the next one

function draw() {
  for (const box of boxes) {
    const { start, end, trial: of } = box.dataset;
    const now = video.currentTime >= start - SLACK && video.currentTime <= Number(end) + SLACK;
    box.toggleAttribute("hidden", !(now && (trial.value === "all" || trial.value === of)));
  }
}

function follow() {
  draw();
  if (!video.paused && !video.ended) requestAnimationFrame(follow);
}

for (const event of ["loadedmetadata", "timeupdate", "seeked"]) video.addEventListener(event, draw);
video.addEventListener("play", follow);
video.addEventListener("error", () => document.querySelector("#unplayable").toggleAttribute("hidden", false));
if (trial) trial.addEventListener("change", draw);
for (const mark of document.querySelectorAll("[data-seek]")) {
  mark.addEventListener("click", () => {
    video.pause();
    video.currentTime = Number(mark.dataset.seek);
    video.scrollIntoView({ block: "nearest" });
  });
}
if (video.error) document.querySelector("#unplayable").toggleAttribute("hidden", false);
draw();
