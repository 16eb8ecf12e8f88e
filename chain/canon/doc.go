// Package canon defines the one byte string that stands for a message wherever it is signed or
// hashed: protobuf wire form with ascending fields, minimal varints, no default values, singular
// fields once, no unknown fields, scalars packed, valid UTF-8 and at most MaxDepth messages within
// one another. Repeated elements and a set member of a oneof may be empty; a singular message
// without content is left out.
//
// Marshal writes that form for any message, Unmarshal and Check accept nothing else and say what
// is wrong and where. Maps, floats, groups, extensions and required fields have no canonical form
// and are refused. Reader and the Append functions are the same rules by hand, for code that
// cannot afford reflection.
//
// It judges bytes, not meaning: an account of 31 bytes passes here and fails where it is used.
package canon
