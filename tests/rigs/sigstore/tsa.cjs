// A timestamp authority that reads RFC 3161 queries; the mock makes the token.
const pkijs = require('pkijs');

const POLICY = '1.3.6.1.4.1.57264.2';
const bytes = (block) => Buffer.from(block.valueBlock.valueHexView);

module.exports = function tsa({ routes, authority, tick }) {
  routes['POST /api/v1/timestamp'] = async ({ body }) => {
    const query = pkijs.TimeStampReq.fromBER(body);
    tick('tsa');
    const token = await authority.timestamp({
      artifactHash: bytes(query.messageImprint.hashedMessage),
      hashAlgorithmOID: query.messageImprint.hashAlgorithm.algorithmId,
      nonce: query.nonce ? BigInt(`0x${bytes(query.nonce).toString('hex')}`) : 1,
      policyOID: POLICY,
      certReq: query.certReq ?? false,
    });
    return { status: 201, type: 'application/timestamp-reply', body: token };
  };
};
