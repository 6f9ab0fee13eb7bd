// A rule for secretlint (https://github.com/secretlint/secretlint): finds the API
// keys, client secrets and refresh tokens of Quash by their form and checksum
// (docs/protocol.md, "The form of a secret"), and asks nobody.
//
//   npm install --save-dev secretlint PATH/deploy/scanners/secretlint
//   .secretlintrc.json: {"rules": [{"id": "@quash-project/secretlint-rule-quash"}]}
//   npx secretlint "**/*"
//   git log -p --all | npx secretlint --stdinFileName=history

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

// What stands before or after does not matter: the checksum tells.
const form = /quash_(key|secret|refresh)_([0-9A-Za-z]{43})[0-9A-Za-z]{6}/g;

// 43 digits hold a little more than 32 bytes; greater numbers are no secrets.
const largest = base62((1n << 256n) - 1n, 43);

const names = { key: "an API key", secret: "a client secret", refresh: "a refresh token" };

function base62(n, length) {
  let out = "";
  for (let i = 0; i < length; i++, n /= 62n) out = alphabet[n % 62n] + out;
  return out;
}

function isSecret(text, random) {
  const end = text.length - 6;
  return random <= largest && text.slice(end) === base62(BigInt(crc32(text.slice(0, end))), 6);
}

// The id names a secret and is no help in guessing it.
function id(text) {
  const hash = createHash("sha256").update("quash key id\0" + text).digest("hex");
  return base62(BigInt("0x" + hash.slice(0, 32)), 22);
}

// secretlint masks the data of a message where it prints it, since a rule has the
// secret there. Ours has none: an id that is masked would help nobody.
function messages(kind, id) {
  // A refresh token has no life of its own: Quash looks up whose it is.
  const target = kind === "refresh" ? "-" : `key:${id}`;
  return { FOUND: { en: () => `found ${names[kind]} of Quash, id ${id}: quash revoke ${target} --reason "leaked"` } };
}

export const creator = {
  messages: messages("key", "ID"),
  meta: {
    id: "@quash-project/secretlint-rule-quash",
    type: "scanner",
    recommended: true,
    supportedContentTypes: ["text"],
  },
  create(context) {
    return {
      file(source) {
        for (const found of source.content.matchAll(form)) {
          const [text, kind, random] = found;
          if (!isSecret(text, random)) continue;
          const t = context.createTranslator(messages(kind, id(text)));
          context.report({
            message: t("FOUND"),
            range: [found.index, found.index + text.length],
          });
        }
      },
    };
  },
};
