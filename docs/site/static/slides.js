// Every slide fits: text above the picture or beside it, whichever leaves more room, and type only
// as small as it must be. Measured once, when the deck opens; all slides are laid out by then.
const LARGEST = 28, READABLE = 22, SMALLEST = 18;

const overflows = box => box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > box.clientWidth + 1;
const fits = slide => ![slide, ...slide.querySelectorAll(".idea, .prose, .result, code")].some(overflows);

function largestType(slide) {
  for (let size = LARGEST; size >= SMALLEST; size--) {
    slide.style.fontSize = `${size}px`;
    if (fits(slide)) return size;
  }
  return 0;
}

function pictureWidth(slide) {
  const picture = slide.querySelector(".result img");
  if (!picture) return 1;
  const scale = Math.min(picture.clientWidth / picture.naturalWidth, picture.clientHeight / picture.naturalHeight);
  return scale * picture.naturalWidth;
}

function arrange(idea) {
  const slide = idea.parentElement;
  const score = beside => {
    idea.classList.toggle("beside", beside);
    return Math.min(largestType(slide), READABLE) * pictureWidth(slide);
  };
  const apart = idea.querySelector(".prose + .result") !== null;
  idea.classList.toggle("beside", apart && score(true) > score(false));
  largestType(slide);
}

const loaded = new Promise(done => addEventListener("load", done));
Reveal.on("ready", async () => {
  await loaded; // pictures have a size
  await document.fonts.ready; // and words a width
  document.querySelectorAll(".idea").forEach(arrange);
  Reveal.getRevealElement().classList.add("arranged");
});
