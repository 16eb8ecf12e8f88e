package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/gateway"
)

// newCalls makes the router of the generated stubs. No header of a request reaches a service but
// through rpc.WithToken and the trace.
func newCalls(s *Server) *runtime.ServeMux {
	none := func(string) (string, bool) { return "", false }
	return runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &marshaler{&runtime.JSONPb{
			MarshalOptions: protojson.MarshalOptions{UseProtoNames: true},
		}}),
		runtime.WithIncomingHeaderMatcher(none), runtime.WithOutgoingHeaderMatcher(none),
		runtime.WithForwardResponseOption(linkNext),
		runtime.WithForwardResponseOption(submitted),
		runtime.WithOutgoingTrailerMatcher(none), runtime.WithDisableChunkedEncoding(),
		// Or a POST of a form could become a GET, such as a watch, behind the back of the routes.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithErrorHandler(func(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler,
			w http.ResponseWriter, r *http.Request, err error,
		) {
			s.fail(w, r, stubError(err))
		}),
		runtime.WithRoutingErrorHandler(func(_ context.Context, _ *runtime.ServeMux,
			_ runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int,
		) {
			s.noRoute(w, r, code)
		}),
		runtime.WithStreamErrorHandler(func(ctx context.Context, err error) *status.Status {
			if holder, ok := ctx.Value(failedKey{}).(*error); ok {
				*holder = err
			}
			return rpc.Status(s.explain(ctx, err))
		}),
	)
}

// marshaler writes the error that ends a stream in the same shape as every other error.
type marshaler struct{ *runtime.JSONPb }

// Marshal implements runtime.Marshaler.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	chunk, isMap := v.(map[string]proto.Message)
	if !isMap {
		return m.JSONPb.Marshal(v)
	}
	told, isError := chunk["error"].(*spb.Status)
	if !isError {
		return m.JSONPb.Marshal(v)
	}
	f := fault.From(rpc.Error("gateway", status.FromProto(told).Err()))
	return json.Marshal(map[string]Failure{"error": failureOf(f)})
}

// asking is a request as the client wrote it.
type asking struct {
	url   *url.URL
	token string
}

// call serves one request and one response.
func (s *Server) call(w http.ResponseWriter, r *http.Request, a asking) error {
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.MaxTime)
	defer cancel()
	r = r.WithContext(context.WithValue(ctx, askedKey{}, a))
	give, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	defer give()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	var who client
	if r.Header.Get(keyHeader) != "" {
		who = s.whose(ctx, a.token, addressOf(r))
		if !who.proven { // its token names nobody: then the very same token counts
			who.token = sha256.Sum256([]byte(a.token))
		}
	}
	out := &callWriter{ResponseWriter: w, server: s, request: r}
	return s.once(out, r, who, s.calls.ServeHTTP)
}

// askedKey finds what the client asked.
type askedKey struct{}

// linkNext names the next page of a list in a Link header (RFC 8288).
func linkNext(ctx context.Context, w http.ResponseWriter, m proto.Message) error {
	a, ok := ctx.Value(askedKey{}).(asking)
	if m == nil || !ok {
		return nil
	}
	reflected := m.ProtoReflect()
	field := reflected.Descriptor().Fields().ByName("next_page_token")
	if field == nil || field.Kind() != protoreflect.StringKind {
		return nil
	}
	if token := reflected.Get(field).String(); token != "" {
		query := a.url.Query()
		query.Set("page_token", token)
		w.Header().Set("Link", "<"+a.url.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
	}
	return nil
}

// submitted fails the call whose transaction was refused before any block: in gRPC that is one
// result of perhaps many, in REST the call did not do what it was asked. A transaction that stands
// in a block, if only for its fee, was taken. One that waits for its block is not over.
func submitted(_ context.Context, w http.ResponseWriter, m proto.Message) error {
	answer, ok := m.(interface{ GetResult() *ledgerv1.SubmitResult })
	if !ok {
		return nil
	}
	result := answer.GetResult()
	if reason := fault.Reason(result.GetErrorReason()); reason.Valid() {
		kind := fault.FailedPrecondition
		if result.GetErrorCode() != 0 {
			kind = fault.Kind(result.GetErrorCode())
		}
		return fault.New(kind, reason, "%s", result.GetErrorMessage())
	}
	if got, ok := w.(*recorded); ok {
		got.passing = result.GetFinality() == ledgerv1.Finality_FINALITY_ACCEPTED
	}
	return nil
}

// wholeBody is a body in memory.
type wholeBody struct {
	bytes.Reader
	all []byte
}

// Close implements io.Closer.
func (*wholeBody) Close() error { return nil }

// firstPiece is how much of a body memory is reserved for before anything of it is here.
const firstPiece = 4 << 10

// readBody takes the whole body into memory, so that a slow or endless one never holds a call. What
// it takes there is reserved until give is called: as it comes, since what is only announced costs
// its sender nothing.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) (give func(), err error) {
	limit := int64(s.cfg.MaxBody)
	if r.ContentLength > limit {
		return nil, bodyTooLarge(limit)
	}
	if r.Body == nil || r.Body == http.NoBody {
		return func() {}, nil
	}
	size := limit // of a body of unknown length
	if r.ContentLength >= 0 {
		size = r.ContentLength
	}
	reserved := 0
	give = func() { s.bodies.give(addressOf(r), reserved) }
	src := http.MaxBytesReader(w, newHasty(w, r.Body, s.cfg.StallTime), limit)
	body, err := readPieces(src, int(size), func(n int) error {
		_, err := s.bodies.takeMany(r, n, "requests with bodies")
		if err == nil {
			reserved += n
		}
		return err
	})
	if err != nil {
		give()
		w.Header().Set("Connection", "close") // else the answer waits for what is not read
		return nil, err
	}
	whole := &wholeBody{all: body}
	whole.Reset(body)
	r.Body, r.ContentLength = whole, int64(len(body))
	return give, nil
}

// readPieces reads src to its end, at most size bytes. Before its memory grows, take is asked.
func readPieces(src io.Reader, size int, take func(n int) error) ([]byte, error) {
	var body []byte
	taken := 0
	for {
		if len(body) == cap(body) {
			next := min(max(2*taken, firstPiece), size)
			if err := take(next - taken); err != nil {
				return nil, err
			}
			taken = next
			// One more, so that the end is seen without memory for another piece.
			body = append(make([]byte, 0, next+1), body...)
		}
		n, err := src.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case errors.As(err, &tooLarge):
			return nil, bodyTooLarge(tooLarge.Limit)
		case err != nil:
			return nil, bodyCut(err)
		}
	}
}

func bodyCut(err error) error {
	return fault.New(fault.InvalidArgument, gateway.ReasonBodyCut,
		"the body did not arrive whole").Because(err)
}

// failedKey finds where the error that ended a stream goes.
type failedKey struct{}

// watch serves a stream of the stubs: one JSON object per line, {"result": ...} or, at last,
// {"error": ...}. A failure before the first is an ordinary one.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, route gateway.Route) error {
	r, end, err := s.beginStream(w, r, route.Name)
	if err != nil {
		return err
	}
	defer end()
	var failed error
	ctx := context.WithValue(r.Context(), failedKey{}, &failed)
	out := &streamWriter{
		patientWriter: newPatientWriter(w, s.cfg.StallTime), failed: &failed, server: s, request: r,
	}
	s.calls.ServeHTTP(out, r.WithContext(ctx))
	if out.refused {
		return failed
	}
	return nil
}

// streamWriter drops what the stubs write about a stream that failed before it began, and ends one
// for whose next line there is no room.
type streamWriter struct {
	*patientWriter
	failed  *error
	server  *Server
	request *http.Request
	begun   bool
	refused bool
}

// WriteHeader implements http.ResponseWriter. The stubs call it for such a failure only.
func (w *streamWriter) WriteHeader(code int) {
	if w.refused = *w.failed != nil; !w.refused {
		w.patientWriter.WriteHeader(code)
	}
}

// Write implements http.ResponseWriter.
func (w *streamWriter) Write(b []byte) (int, error) {
	if w.refused {
		return len(b), nil
	}
	give, err := w.server.unread.take(w.ResponseWriter, w.request, len(b))
	if err != nil {
		return 0, w.end(err)
	}
	defer give()
	w.begun = true
	return w.patientWriter.Write(b)
}

// end tells a stream's client why it ends. The stubs say no more once a line cannot be written.
func (w *streamWriter) end(why error) error {
	if !w.begun {
		*w.failed, w.refused = why, true
		return why
	}
	line, err := json.Marshal(map[string]Failure{"error": failureOf(fault.From(why))})
	if err == nil {
		_, err = w.patientWriter.Write(append(line, '\n'))
	}
	return errors.Join(why, err)
}

// untilDrain returns a context that also ends when the gateway is told to stop.
func (s *Server) untilDrain(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(s.draining, func() { cancel(context.Cause(s.draining)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
