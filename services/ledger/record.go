package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
)

// A record's bytes are: length of the block (uvarint), canonical block, number of receipts
// (uvarint), and each receipt with its length before it. Receipts follow from the blocks before,
// but nobody should have to execute a chain anew to prove one.

// appendRecord appends a record of a block's header and body, its certificate and its receipts.
func appendRecord(dst, unsigned []byte, c block.Certificate, receipts [][]byte) []byte {
	const field = 3 // of the certificate in a Block
	signature := c.Append(nil)
	tail, mark := canon.Begin(nil, field)
	tail = canon.End(append(tail, signature...), mark)
	dst = binary.AppendUvarint(dst, uint64(len(unsigned)+len(tail)))
	dst = append(append(dst, unsigned...), tail...)
	dst = binary.AppendUvarint(dst, uint64(len(receipts)))
	for _, receipt := range receipts {
		dst = append(binary.AppendUvarint(dst, uint64(len(receipt))), receipt...)
	}
	return dst
}

// errRecord says that a log's record is not what this program writes: another version wrote it.
var errRecord = errors.New("record is not a block with its receipts")

// parseRecord takes a record apart; its parts lie in b. The block's canonical bytes come with it.
func parseRecord(b []byte) (blk *block.Block, raw []byte, receipts [][]byte, err error) {
	raw, rest, ok := cutBytes(b)
	if !ok {
		return nil, nil, nil, errRecord
	}
	blk, err = block.Decode(raw)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	n, size := binary.Uvarint(rest)
	if size <= 0 || n != uint64(len(blk.Body.Transactions)) {
		return nil, nil, nil, fmt.Errorf("%w: %d receipts for %d transactions", errRecord, n,
			len(blk.Body.Transactions))
	}
	rest = rest[size:]
	receipts = make([][]byte, n)
	for i := range receipts {
		if receipts[i], rest, ok = cutBytes(rest); !ok {
			return nil, nil, nil, fmt.Errorf("%w: receipt %d is cut short", errRecord, i)
		}
	}
	if len(rest) != 0 {
		return nil, nil, nil, fmt.Errorf("%w: %d bytes are left over", errRecord, len(rest))
	}
	return blk, raw, receipts, nil
}

// cutBytes cuts bytes off b that have their length before them.
func cutBytes(b []byte) (part, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	return b[size : size+int(n)], b[size+int(n):], true
}
