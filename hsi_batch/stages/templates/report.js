"use strict";
// Tables that are sorted, filtered and shown a page at a time: the document never holds all rows.
const showTables = (data) => {
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const shown = (value) => {
    if (value === null) return "-";
    if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
    if (Number.isInteger(value)) return String(value);
    const size = Math.abs(value);
    return size >= 1e-4 && size < 1e5 ? String(Number(value.toPrecision(4))) : value.toExponential(3);
  };

  class Listing {
    constructor(section, table) {
      this.columns = table.columns.map((column) => ({
        ...column,
        list: column.words ? data.words[column.words] : null,
        values: column.values.map((v) => (typeof v === "string" ? Number(v) : v)),
      }));
      this.links = table.links;
      this.unit = section.dataset.unit;
      this.count = this.columns[0].values.length;
      this.sort = table.sort;
      this.down = true;
      this.page = 0;
      this.size = 25;
      this.body = section.querySelector("tbody");
      this.heads = [...section.querySelectorAll("th")];
      this.status = section.querySelector("[role=status]");
      this.heads.forEach((head, i) => this.addSort(head, i));
      this.addFilters(section.querySelector(".controls"));
      this.addPager(section.querySelector(".pager"));
      this.rows = [...Array(this.count).keys()];
      this.order();
    }

    addSort(head, i) {
      const button = make("button", { type: "button" }, head.textContent);
      button.addEventListener("click", () => {
        this.down = this.sort === i ? !this.down : !this.columns[i].list;
        this.sort = i;
        this.order();
      });
      head.replaceChildren(button);
    }

    addFilters(place) {
      const texts = this.columns.filter((c) => c.list).map((c) => c.name);
      const numbers = this.columns.filter((c) => !c.list);
      this.text = make("input", { type: "search", spellcheck: false });
      this.column = make("select", {}, ...numbers.map((c) => make("option", {}, c.name)));
      const first = numbers.findIndex((c) => c === this.columns[this.sort]);
      this.column.selectedIndex = Math.max(0, first);
      this.low = make("input", { type: "number", step: "any" });
      this.high = make("input", { type: "number", step: "any" });
      const clear = make("button", { type: "button" }, "Show all");
      clear.addEventListener("click", () => {
        for (const input of [this.text, this.low, this.high]) input.value = "";
        this.filter();
      });
      for (const input of [this.text, this.column, this.low, this.high])
        input.addEventListener("input", () => this.filter());
      place.append(
        make("label", {}, `${texts.join(" or ")} contains`, this.text),
        make("label", {}, "and", this.column),
        make("label", {}, "from", this.low),
        make("label", {}, "to", this.high),
        clear,
      );
      place.hidden = false;
    }

    addPager(place) {
      const step = (words, label, target) => {
        const button = make("button", { type: "button", ariaLabel: label }, words);
        button.addEventListener("click", () => {
          this.page = Math.min(Math.max(target(), 0), this.last());
          this.draw();
        });
        return button;
      };
      this.back = [
        step("«", `First ${this.unit}`, () => 0),
        step("‹", `Previous ${this.unit}`, () => this.page - 1),
      ];
      this.forth = [
        step("›", `Next ${this.unit}`, () => this.page + 1),
        step("»", `Last ${this.unit}`, () => this.last()),
      ];
      const sizes = [25, 50, 100, 500].map((n) => make("option", {}, String(n)));
      const size = make("select", {}, ...sizes);
      size.addEventListener("input", () => {
        this.page = Math.floor((this.page * this.size) / Number(size.value));
        this.size = Number(size.value);
        this.draw();
      });
      place.replaceChildren(
        ...this.back,
        ...this.forth,
        this.status,
        make("label", {}, "rows ", size),
      );
      place.hidden = this.count <= 1;
    }

    last() {
      return Math.max(0, Math.ceil(this.rows.length / this.size) - 1);
    }

    filter() {
      const wanted = this.text.value.trim().toLowerCase();
      const texts = this.columns
        .filter((c) => c.list)
        .map((c) => ({ ...c, hit: c.list.map((word) => word.toLowerCase().includes(wanted)) }));
      const numbers = this.columns.filter((c) => !c.list)[this.column.selectedIndex];
      const low = this.low.value === "" ? null : Number(this.low.value);
      const high = this.high.value === "" ? null : Number(this.high.value);
      const bounded = low !== null || high !== null;
      this.rows = [];
      for (let row = 0; row < this.count; row++) {
        if (wanted && !texts.some((c) => c.hit[c.values[row]])) continue;
        if (bounded) {
          const value = numbers.values[row];
          if (value === null || (low !== null && value < low) || (high !== null && value > high))
            continue;
        }
        this.rows.push(row);
      }
      this.order();
    }

    order() {
      const values = this.sort < 0 ? null : this.columns[this.sort].values;
      const sign = this.down ? -1 : 1;
      this.rows.sort((a, b) => {
        if (!values) return a - b;
        const x = values[a];
        const y = values[b];
        if (x === y) return a - b;
        if (x === null) return 1;
        if (y === null) return -1;
        return x < y ? -sign : sign;
      });
      const order = this.down ? "descending" : "ascending";
      this.heads.forEach((head, i) => (head.ariaSort = i === this.sort ? order : "none"));
      this.page = 0;
      this.draw();
    }

    draw() {
      const start = this.page * this.size;
      const part = this.rows.slice(start, start + this.size);
      this.body.replaceChildren(...part.map((row) => make("tr", {}, ...this.cells(row))));
      for (const button of this.back) button.ariaDisabled = String(this.page <= 0);
      for (const button of this.forth) button.ariaDisabled = String(this.page >= this.last());
      const all = this.rows.length === this.count ? "" : ` that match, of ${this.count}`;
      this.status.textContent = part.length
        ? `${start + 1} to ${start + part.length} of ${this.rows.length} ${this.unit}${all}`
        : `none of ${this.count} ${this.unit} match`;
    }

    cells(row) {
      return this.columns.map((column, i) => {
        const value = column.values[row];
        if (!column.list) return make("td", { className: "number" }, shown(value));
        const word = column.list[value];
        // Where each frame can be opened, its name does so.
        const open = data.open && `${encodeURIComponent(word)}/${this.columns[1].values[row]}`;
        const anchor = i === 0 ? open || this.links[row] : undefined;
        const inside = anchor ? make("a", { href: `#${anchor}` }, word) : word;
        return make("td", { className: "text" }, inside);
      });
    }
  }

  for (const [key, table] of Object.entries(data.tables)) {
    const section = document.getElementById(key);
    if (section) new Listing(section, table);
  }
};

const held = document.getElementById("report-data");
if (held) showTables(JSON.parse(held.textContent));
