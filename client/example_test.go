package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

func ExampleDial() {
	dir, address, stop := examplePrimary()
	defer stop()

	primary, err := client.Dial(client.Config{
		Address:  address,
		CertFile: filepath.Join(dir, "ops.crt"),
		KeyFile:  filepath.Join(dir, "ops.key"),
		CAFile:   filepath.Join(dir, "ca.crt"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = primary.Close() }()
	nodes, err := primary.Nodes(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, node := range nodes {
		fmt.Println(node.GetName(), node.GetState())
	}
	// Output:
	// eu-west NODE_STATE_HEALTHY
}

// A consumer deals with the changes of an event, then stores its position, and goes on from there after a restart.
func ExampleClient_Changes() {
	primary, stop := exampleFeed()
	defer stop()

	stored := client.Position{} // as read from where it was stored
	for event, err := range primary.Changes(context.Background(), stored) {
		if errors.Is(err, client.ErrStartOver) {
			continue // the primary was replaced: every repository comes again
		}
		if err != nil {
			fmt.Println(err) // the primary refuses our certificate
			return
		}
		for _, change := range event.Changes {
			fmt.Println(change.Repository, change.Revision)
		}
		stored = client.Position{FeedID: event.FeedID, Revision: event.Cursor, Incarnation: event.Incarnation}
		if stored.Revision == event.Head {
			break // a service would go on
		}
	}
	fmt.Println("stored", stored.Revision)
	// Output:
	// team/app 1
	// team/base 2
	// stored 2
}

func ExampleClient_Tags() {
	primary, stop := exampleFeed()
	defer stop()

	listing, err := primary.Tags(context.Background(), "team/app", client.Position{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, tag := range listing.Tags {
		fmt.Println(tag.Name, tag.Digest)
	}
	fmt.Println("complete:", listing.Complete)
	// Output:
	// v1 sha256:v1
	// v2 sha256:v2
	// complete: true
}

// A deployment waits until the image is wherever it will be pulled from.
func ExampleClient_Wait() {
	primary, stop := exampleFeed()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	digest, err := primary.Wait(ctx, client.WaitOptions{Repository: "team/app", Reference: "v1"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("everywhere:", digest)
	// Output:
	// everywhere: sha256:v1
}

// exampleFeed is a primary in memory with two repositories.
func exampleFeed() (*client.Client, func()) {
	p := &primary{
		subscribe: func(_ *antipodev1.SubscribeRequest, stream subscribeStream) error {
			return idle(stream, hello("feed", 2, time.Minute), changes(2, 2, "team/app", "team/base"))
		},
		list: func(_ *antipodev1.ListTagsRequest, stream listStream) error {
			return send(stream, nil, page("v1", "v2"), summary(2, 0))
		},
		locate: func(*antipodev1.LocateReferenceRequest) (*antipodev1.LocateReferenceResponse, error) {
			return &antipodev1.LocateReferenceResponse{Digest: "sha256:v1", Nodes: []*antipodev1.NodeReference{
				{Node: "eu-west", Equal: true},
			}}, nil
		},
	}
	return p.start()
}

// examplePrimary serves on loopback with certificates from a new authority in dir.
func examplePrimary() (dir, address string, stop func()) {
	dir, err := os.MkdirTemp("", "example")
	must(err)
	must(authority.Init(dir))
	must(authority.Issue(dir, "primary", link.RolePrimary, nil))
	must(authority.Issue(dir, "ops", link.RoleOperator, nil))
	server, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: filepath.Join(dir, "primary.crt"), KeyFile: filepath.Join(dir, "primary.key"),
		ClientCAFile: filepath.Join(dir, "ca.crt"), Logger: slog.New(slog.DiscardHandler),
		Authorize: func(context.Context, string, link.Identity) error { return nil },
	})
	must(err)
	antipodev1.RegisterNodeServiceServer(server.GRPC(), mirror{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	return dir, server.Addr().String(), func() {
		cancel()
		must(<-done)
		must(os.RemoveAll(dir))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
