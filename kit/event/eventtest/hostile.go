package eventtest

import (
	"math/rand/v2"

	"github.com/united-containers/ucn/kit/event"
)

// Hostile returns what a broker that means harm delivers of a line: of a third nothing, some of
// the rest twice, all within a window in any order. The last one comes, and comes last: a line that
// ends in a loss cannot be told from one that has no more to say.
func Hostile(random *rand.Rand, line []*event.Envelope, window int) []*event.Envelope {
	var out []*event.Envelope
	for _, e := range line[:len(line)-1] {
		switch random.IntN(6) {
		case 0, 1:
		case 2:
			out = append(out, e, e)
		default:
			out = append(out, e)
		}
	}
	for at := 0; at < len(out); at += window {
		part := out[at:min(at+window, len(out))]
		random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	return append(out, line[len(line)-1])
}
