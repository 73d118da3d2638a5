// The latest few values by key; what is dropped is handed to `release`.
export class LatestFew {
  constructor(capacity, release = () => {}) {
    this.capacity = capacity;
    this.release = release;
    this.values = new Map();
  }

  get(key) {
    const value = this.values.get(key);
    if (value !== undefined) {
      this.values.delete(key);
      this.values.set(key, value);
    }
    return value;
  }

  has(key) {
    return this.values.has(key);
  }

  set(key, value) {
    this.delete(key);
    this.values.set(key, value);
    if (this.values.size > this.capacity) this.delete(this.values.keys().next().value);
  }

  delete(key) {
    if (this.values.has(key)) {
      this.release(this.values.get(key));
      this.values.delete(key);
    }
  }

  clear() {
    for (const key of [...this.values.keys()]) this.delete(key);
  }
}
