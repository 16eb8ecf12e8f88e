package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/united-containers/ucn/kit/fault"
)

// client is what surrounds every call of one connection: the token goes out, faults come back.
type client struct {
	service string
	tokens  TokenSource
	origins OriginSource
}

func (c *client) unary() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, response any,
		conn *grpc.ClientConn, next grpc.UnaryInvoker, options ...grpc.CallOption,
	) error {
		ctx, err := c.prepare(ctx)
		if err != nil {
			return err
		}
		return Error(c.service, next(ctx, method, request, response, conn, options...))
	}
}

func (c *client) stream() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
		method string, next grpc.Streamer, options ...grpc.CallOption,
	) (grpc.ClientStream, error) {
		ctx, err := c.prepare(ctx)
		if err != nil {
			return nil, err
		}
		stream, err := next(ctx, desc, conn, method, options...)
		if err != nil {
			return nil, Error(c.service, err)
		}
		return &clientStream{stream, c.service}, nil
	}
}

// prepare puts what a call brings along into the outgoing metadata.
func (c *client) prepare(ctx context.Context) (context.Context, error) {
	ctx, err := c.vouch(ctx)
	if err != nil {
		return nil, fmt.Errorf("tell the %s where a call comes from: %w", c.service, err)
	}
	return c.authorize(ctx)
}

// authorize puts a token into the outgoing metadata: that of WithToken, else one that the caller
// has put there already, else the client's own.
func (c *client) authorize(ctx context.Context) (context.Context, error) {
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	token, explicit := ctx.Value(tokenKey{}).(string)
	switch {
	case explicit:
	case len(outgoing.Get(authorizationName)) > 0 || c.tokens == nil:
		return ctx, nil
	default:
		var err error
		if token, err = c.tokens.Token(ctx, c.service); err != nil {
			if f := fault.From(err); f != nil {
				return nil, local(f)
			}
			return nil, fmt.Errorf("get a token for %s: %w", c.service, err)
		}
	}
	if token == "" {
		return ctx, nil
	}
	headers := metadata.MD{}
	maps.Copy(headers, outgoing)
	headers.Set(authorizationName, bearer+token)
	return metadata.NewOutgoingContext(ctx, headers), nil
}

// clientStream turns the errors of a stream into faults. io.EOF stays itself.
type clientStream struct {
	grpc.ClientStream
	service string
}

func (s *clientStream) RecvMsg(m any) error { return s.fault(s.ClientStream.RecvMsg(m)) }
func (s *clientStream) SendMsg(m any) error { return s.fault(s.ClientStream.SendMsg(m)) }
func (s *clientStream) CloseSend() error    { return s.fault(s.ClientStream.CloseSend()) }
func (s *clientStream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	return header, s.fault(err)
}

func (s *clientStream) fault(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return Error(s.service, err)
}
