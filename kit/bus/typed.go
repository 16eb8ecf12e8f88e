package bus

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"
)

// Unary registers f for a method with one reply. f's context ends at the request's not_after. Req
// and Resp are pointers to messages. It panics as Server.Handle does.
func Unary[Req, Resp proto.Message](
	s *Server, name string, f func(ctx context.Context, req Req) (Resp, error),
) {
	s.register(name, method{unary: true, handle: func(ctx context.Context, c *Call) error {
		req := empty[Req]()
		if err := c.Decode(req); err != nil {
			return err
		}
		resp, err := f(ctx, req)
		if err != nil {
			return err
		}
		return c.Finish(resp)
	}})
}

// ServerStream registers f for a method with many replies: each send is one of them, and they end
// when f returns. send is Call.Send.
func ServerStream[Req, Resp proto.Message](
	s *Server, name string, f func(ctx context.Context, req Req, send func(Resp) error) error,
) {
	s.Handle(name, func(ctx context.Context, c *Call) error {
		req := empty[Req]()
		if err := c.Decode(req); err != nil {
			return err
		}
		return f(ctx, req, func(resp Resp) error { return c.Send(resp) })
	})
}

// Replies iterates over the messages of a stream; the last pair holds the error, if there is one
// but the stream's proper end. Breaking off does not close the stream.
func Replies[Resp proto.Message](r *Receiver) iter.Seq2[Resp, error] {
	return func(yield func(Resp, error) bool) {
		for {
			resp := empty[Resp]()
			err := r.Next(resp)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(resp, err) || err != nil {
				return
			}
		}
	}
}

// empty returns a new message of M's type.
func empty[M proto.Message]() M {
	var none M
	return none.ProtoReflect().New().Interface().(M)
}
