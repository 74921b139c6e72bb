package registry

import (
	"context"
	"io"
	"net"
	"sync"
)

// pieceSize is how much of a body is written to a connection at a time.
const pieceSize = 128 << 10

// dialer makes connections that write bodies by buffers that are used again.
type dialer struct {
	net.Dialer
	buffers sync.Pool // of *[pieceSize]byte
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, buffers: &d.buffers}, nil
}

// connection is what the standard transport copies bodies to. Left alone it makes a buffer for each.
type connection struct {
	net.Conn
	buffers *sync.Pool
}

// ReadFrom implements io.ReaderFrom.
func (c *connection) ReadFrom(r io.Reader) (int64, error) {
	buffer, ok := c.buffers.Get().(*[pieceSize]byte)
	if !ok {
		buffer = new([pieceSize]byte)
	}
	defer c.buffers.Put(buffer)
	return io.CopyBuffer(struct{ io.Writer }{c.Conn}, r, buffer[:])
}
