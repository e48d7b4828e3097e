// The second verifier. Standard input: one JSON object a line, {root, bundle, identity, issuer},
// the last three as a verifier is given them. Standard output: {ok} or {ok: false, code, message}.
const readline = require('readline');
const { bundleFromJSON } = require('@sigstore/bundle');
const { TrustedRoot } = require('@sigstore/protobuf-specs');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

// It takes a pattern that is searched for: to compare, escape and anchor.
const exactly = (text) => `^${text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}$`;

function verify({ root, bundle, identity, issuer }) {
  try {
    const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(JSON.parse(root))));
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(bundle))), {
      subjectAlternativeName: exactly(identity),
      extensions: { issuer },
    });
    return { ok: true };
  } catch (error) {
    return { ok: false, code: error.code || error.constructor.name, message: String(error.message) };
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  console.log(JSON.stringify(verify(JSON.parse(line))));
});
