// @sigstore/mock, made to speak as the real services do. Its certificates, SCTs, SETs and
// timestamps are used as they are; what differs from the real services is put right here.
require('reflect-metadata'); // before @peculiar/x509
const asn1js = require('asn1js');
const x509Module = require('@peculiar/x509');

const x509 = x509Module.default || x509Module;

// The mock writes every identity as a URI; Fulcio writes addresses as rfc822Name.
const ADDRESS = /^[^:/@]+@[^:/@]+$/;

class AlternativeName extends x509.SubjectAlternativeNameExtension {
  constructor(names, critical) {
    super(
      names.map((name) =>
        name.type === 'url' && ADDRESS.test(name.value) ? { type: 'email', value: name.value } : name,
      ),
      critical,
    );
  }
}
for (const target of new Set([x509, x509Module])) {
  Object.defineProperty(target, 'SubjectAlternativeNameExtension', {
    value: AlternativeName,
    configurable: true,
  });
}

// asn1js writes numbers above 2^48 as an empty INTEGER; a nonce of RFC 3161 has 64 bits.
class ExactInteger extends asn1js.Integer {
  constructor(parameters = {}) {
    super(
      typeof parameters.value === 'bigint' ? { valueHex: twosComplement(parameters.value) } : parameters,
    );
  }
}
ExactInteger.NAME = 'INTEGER';
Object.defineProperty(asn1js, 'Integer', { value: ExactInteger, configurable: true });

function twosComplement(value) {
  let hex = value.toString(16);
  if (hex.length % 2) hex = '0' + hex;
  if (parseInt(hex.slice(0, 2), 16) & 0x80) hex = '00' + hex;
  return new Uint8Array(Buffer.from(hex, 'hex')).buffer;
}

// PEM as Go writes it, 64 columns: verifiers compare it byte for byte.
function pem(der, label = 'CERTIFICATE') {
  const lines = Buffer.from(der).toString('base64').match(/.{1,64}/g).join('\n');
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`;
}

function rewrapped(text) {
  const [, label, body] = /-----BEGIN ([^-]+)-----([\s\S]*?)-----END/.exec(text);
  return pem(Buffer.from(body, 'base64'), label);
}

module.exports = { mock: require('@sigstore/mock'), x509, pem, rewrapped };
