package segment

import "hash/crc32"

// stride is how many records lie between two whose offsets are remembered.
const stride = 16

// part is one segment file and where its records are.
type part struct {
	preamble
	marks
	path  string
	count uint64  // records
	last  int64   // offset of the last record
	end   int64   // offset after the last record
	known []int64 // offset of every stride-th record, from the first
}

func newPart(path string, p preamble, table *crc32.Table) *part {
	return &part{
		preamble: p, marks: p.marks(table), path: path, end: segmentHeader,
	}
}

// add remembers one more record.
func (p *part) add(offset, length int64) {
	if p.count%stride == 0 {
		p.known = append(p.known, offset)
	}
	p.count++
	p.last = offset
	p.end = offset + length
}

// near returns the last remembered offset at or before a height that the part holds, and how many
// records further it is.
func (p *part) near(height uint64) (offset int64, skip uint64) {
	index := height - p.first
	return p.known[index/stride], index % stride
}

// holds reports whether the part has a record of that height.
func (p *part) holds(height uint64) bool {
	return height >= p.first && height-p.first < p.count
}
