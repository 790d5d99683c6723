"use strict";
// Without this script every sound has the browser's own controls. With it a sound has one button, a kind of sounds is one
// stop of the Tab key, arrow keys move between all sounds, and one sound plays at a time.
const sounds = [...document.querySelectorAll(".sound")].map((card) => ({
  card,
  audio: card.querySelector("audio"),
  button: card.querySelector("button"),
  view: card.querySelector(".view"),
  cursor: card.querySelector(".view i"),
  time: card.querySelector("time"),
  group: card.closest(".sounds"),
  name: card.querySelector(".name").textContent,
}));

function seconds(value) { return (Number.isFinite(value) ? value : 0).toFixed(2); }

function show(sound) {
  const { audio, card } = sound, playing = !audio.paused;
  card.classList.toggle("playing", playing);
  card.classList.toggle("paused", !playing && audio.currentTime > 0 && !audio.ended);
  sound.button.textContent = playing ? "\u275A\u275A" : "\u25B6\uFE0E";
  sound.button.setAttribute("aria-label", (playing ? "Pause " : "Play ") + sound.name);
  sound.time.textContent = seconds(audio.currentTime) + " / " + seconds(audio.duration) + " s";
  sound.cursor.style.left = 100 * Math.min(1, audio.currentTime / (audio.duration || 1)) + "%";
}

function follow(sound) {
  show(sound);
  if (!sound.audio.paused) requestAnimationFrame(() => follow(sound));
}

function toggle({ audio }) { if (audio.paused) audio.play(); else audio.pause(); }

function stop({ audio }) { audio.pause(); audio.currentTime = 0; }

function seek({ audio }, to) { audio.currentTime = Math.max(0, Math.min(audio.duration || 0, to)); }

function enter(sound) {
  for (const other of sounds) if (other.group === sound.group) other.button.tabIndex = other === sound ? 0 : -1;
}

const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };

function press(event, index) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const sound = sounds[index], step = steps[event.key];
  if (event.key === "Escape") stop(sound);
  else if (step === undefined) return;
  else if (event.shiftKey && Number.isFinite(step)) seek(sound, sound.audio.currentTime + step / 2);
  else sounds[Math.max(0, Math.min(sounds.length - 1, index + step))].button.focus();
  event.preventDefault();
}

sounds.forEach((sound, index) => {
  const { audio, button, view } = sound;
  audio.controls = false;
  audio.hidden = true;
  button.hidden = false;
  button.tabIndex = sounds.findIndex((other) => other.group === sound.group) === index ? 0 : -1;
  button.addEventListener("click", () => toggle(sound));
  button.addEventListener("focus", () => enter(sound));
  button.addEventListener("keydown", (event) => press(event, index));
  view.addEventListener("click", (event) => {
    const box = view.getBoundingClientRect();
    seek(sound, (audio.duration || 0) * (event.clientX - box.left) / box.width);
    if (audio.paused) audio.play();
  });
  audio.addEventListener("play", () => {
    for (const other of sounds) if (other !== sound) stop(other);
    follow(sound);
  });
  for (const event of ["pause", "ended", "seeked", "loadedmetadata"]) audio.addEventListener(event, () => show(sound));
  show(sound);
});
for (const hint of document.querySelectorAll(".keys")) hint.hidden = false;
