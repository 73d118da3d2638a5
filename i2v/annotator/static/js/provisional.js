// Objects that the page has named and the server has not yet confirmed: their number is known at once, so that what is
// said of them queues behind their making.
const MOST = 254; // 255 is the void label of other tools

export class Provisional {
  constructor() {
    this.objects = new Map(); // number -> { number, name, visible, outdated, news }
    this.failed = new Set();
  }

  // The number of the next object, or null if all are taken. `next` is what the server would take.
  free(next, numbers) {
    const taken = new Set([...numbers, ...this.objects.keys()]);
    for (let n = next ?? 1; n <= MOST; n++) if (!taken.has(n)) return n;
    for (let n = 1; n < (next ?? 1); n++) if (!taken.has(n)) return n;
    return null;
  }

  add(number) {
    this.failed.delete(number);
    const object = { number, name: `object ${number}`, visible: true, category: "", locked: false, outdated: [], news: Infinity };
    this.objects.set(number, object);
    return object;
  }

  // The server has made it; news of that number and later tell of it.
  confirm(number, news) {
    const object = this.objects.get(number);
    if (object) object.news = news;
  }

  // Returns whether nobody else has made it meanwhile.
  fail(number) {
    this.failed.add(number);
    return this.objects.delete(number);
  }

  // What was meant for an object that could not be made must not go to another tab's object of that number.
  check(number) {
    if (this.failed.has(number)) throw new Error(`object ${number} could not be made, so this was not done`);
  }

  // The objects of a state that was told with the news of a number, and those that it cannot know yet.
  merged(objects, news) {
    const known = new Set(objects.map((object) => object.number));
    for (const [number, object] of this.objects) {
      if (known.has(number) || object.news <= news) this.objects.delete(number);
    }
    return [...objects, ...this.objects.values()];
  }
}
