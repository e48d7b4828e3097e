// A Merkle tree as RFC 6962 has it, over leaves in memory.
const crypto = require('crypto');

function sha256(...parts) {
  const hash = crypto.createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

function split(count) {
  let left = 1;
  while (left * 2 < count) left *= 2;
  return left;
}

function rootOf(leaves) {
  if (leaves.length === 1) return leaves[0];
  const left = split(leaves.length);
  return sha256(Buffer.from([1]), rootOf(leaves.slice(0, left)), rootOf(leaves.slice(left)));
}

function pathTo(index, leaves) {
  if (leaves.length === 1) return [];
  const left = split(leaves.length);
  return index < left
    ? [...pathTo(index, leaves.slice(0, left)), rootOf(leaves.slice(left))]
    : [...pathTo(index - left, leaves.slice(left)), rootOf(leaves.slice(0, left))];
}

class Tree {
  // Entries of others stand before and after each of ours, as in a busy log: no index is zero and no
  // proof empty (proto3 JSON leaves those out), and sizes differ from indices by more than one.
  constructor() {
    this.leaves = [];
    this.others(3);
  }

  add(body) {
    const index = this.leaves.push(sha256(Buffer.from([0]), body)) - 1;
    this.others(4);
    return index;
  }

  others(count) {
    for (let i = 0; i < count; i++) this.leaves.push(sha256(Buffer.from([0]), `other ${this.size}`));
  }

  get size() {
    return this.leaves.length;
  }

  get root() {
    return rootOf(this.leaves);
  }

  path(index) {
    return pathTo(index, this.leaves);
  }

  // A signed note: origin, size, root; `hint` is the first four bytes of the log's key id.
  checkpoint(origin, name, hint, sign) {
    const note = `${origin}\n${this.size}\n${this.root.toString('base64')}\n`;
    const signature = Buffer.concat([hint.subarray(0, 4), sign(Buffer.from(note))]);
    return `${note}\n\u2014 ${name} ${signature.toString('base64')}\n`;
  }
}

module.exports = { Tree, sha256 };
