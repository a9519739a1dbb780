// Reads an AsyncAPI document on stdin. Prints its version, and where the parser finds an error or a
// warning.
const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");

new Parser().parse(readFileSync(0, "utf8")).then(({ document, diagnostics }) => {
  const WARNING = 1; // 0 is an error, 2 and 3 are hints
  const found = diagnostics.filter((each) => each.severity <= WARNING);
  const told = found.map((each) => `${each.path.join(".")}: ${each.message}`);
  console.log(JSON.stringify({ version: document ? document.version() : null, found: told }));
});
