// A browser gives no web worker to a page that was opened from a folder (file:). There the site's
// search runs in a hidden frame of the same page, which takes and gives messages as a worker does.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      // some browsers replace an empty document until its load event
      const opened = new Promise((resolve) => this.frame.addEventListener("load", resolve));
      this.loaded = opened.then(() => this.start(url));
      document.body.append(this.frame);
    }

    start(url) {
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = (...urls) => Promise.all(urls.map((each) => load(inside, each)));
      return load(inside, url);
    }

    async postMessage(data) {
      await this.loaded;
      const inside = this.frame.contentWindow;
      inside.dispatchEvent(new inside.MessageEvent("message", { data }));
    }

    terminate() {
      this.frame.remove();
    }
  };

  function load(inside, url) {
    const script = inside.document.createElement("script");
    script.src = new URL(url, location.href).href;
    return new Promise((resolve, reject) => {
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${url} cannot be loaded`));
      inside.document.body.append(script);
    });
  }
}
