// The slider of a selection: what another share would keep, counted from the bins that `select` wrote. Each position snaps
// to the nearest edge of a bin, where counts are exact. At the recipe's own share the page's static figures come back.
(() => {
  const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)}\u00a0%` : "–");
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  for (const box of document.querySelectorAll(".explorer")) {
    const { edges, members, free, sources, axis } = JSON.parse(box.querySelector("script").textContent);
    const slider = box.querySelector("input"), own = slider.value, bins = edges.length;
    const shown = [...box.querySelectorAll("[data-of]")].map((element) => [element, element.textContent]);
    const line = box.querySelector(".cut"), clip = box.querySelector("clipPath rect");
    const x = line && line.getAttribute("x1");
    // kept[i][u][k]: chunks (u = 0) or tokens (1) of source i that are kept by a cut at edge k; edge `bins` keeps none
    const kept = sources.map(({ fixed, bins: both }) => both.map((counts, u) => {
      const from = Array(bins + 1).fill(fixed[u]);
      for (let k = bins - 1; k >= 0; k--) from[k] = from[k + 1] + counts[k];
      return from;
    }));
    const all = [0, 1].map((u) => sum(sources.map((source) => source.all[u])));
    const reached = edges.map((_, k) => sum(sources.map(({ fixed }, i) => kept[i][0][k] - fixed[0])));
    const place = (at) => {
      if (!line) return;
      line.setAttribute("x1", at); line.setAttribute("x2", at);
      if (clip) clip.setAttribute("x", at);
    };
    const show = () => {
      const wanted = (slider.value / 1000) * members;
      let k = 0;
      while (k < bins - 1 && Math.abs(reached[k + 1] - wanted) <= Math.abs(reached[k] - wanted)) k++;
      const total = [0, 1].map((u) => sum(kept.map((source) => source[u][k])));
      const says = {
        kept: () => percent(total[0], all[0]),
        below: () => percent(free - total[0], all[0]),
        chunks: () => `${total[0].toLocaleString("en-US")}, ${percent(total[0], all[0])}`,
        tokens: () => `${total[1].toLocaleString("en-US")}, ${percent(total[1], all[1])}`,
        cut: () => edges[k].toFixed(3).replace("-", "\u2212"),
        source_chunks: (i) => kept[i][0][k].toLocaleString("en-US"),
        source_share: (i) => percent(kept[i][0][k], sources[i].all[0]),
        source_after: (i) => percent(kept[i][1][k], total[1]),
      };
      const isOwn = slider.value === own;
      for (const [element, text] of shown) {
        element.textContent = isOwn ? text : says[element.dataset.of](element.dataset.source);
      }
      if (axis) place(isOwn ? x : Math.max((edges[k] - axis[0]) / axis[1], 0));
      slider.setAttribute("aria-valuetext", `${(slider.value / 10).toFixed(1)} percent, tokens ${says.tokens()}`);
    };
    slider.addEventListener("input", show);
    box.querySelector("button").addEventListener("click", () => { slider.value = own; show(); });
    box.querySelectorAll(".moving").forEach((element) => { element.hidden = false; });
  }
})();
