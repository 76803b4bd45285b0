// A browser gives no web worker to a page that was opened from a folder (file:). There the site's
// search runs in a hidden frame of the same page, which takes and gives messages as a worker does.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.loaded = load(this.inside, url);
      this.inside.importScripts = (...urls) => Promise.all(urls.map((each) => load(this.inside, each)));
    }

    async postMessage(data) {
      await this.loaded;
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
    }

    terminate() {
      this.inside.frameElement.remove();
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
