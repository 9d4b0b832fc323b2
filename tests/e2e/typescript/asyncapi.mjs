// Reads an AsyncAPI document from standard input, and prints what the official parser finds wrong in it, one per line.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const ERROR = 0, WARNING = 1;
const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
for (const { severity, code, path, message } of diagnostics) {
  if (severity === ERROR || severity === WARNING) console.log(code, path.join("/"), message);
}
if (document === undefined) console.log("there is no document");
