// A relay on Node's `ws`, as one would write it by hand. Its argument is the port.
"use strict";
const { WebSocketServer } = require("ws");

const users = new Map();
const topics = new Map();

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  perMessageDeflate: false,
});

server.on("connection", (socket, request) => {
  const name = new URL(request.url, "ws://localhost").searchParams.get("user");
  users.set(name, socket);
  socket.on("message", (frame) => {
    const said = JSON.parse(frame);
    if (said.op) {
      if (said.op === "subscribe") {
        if (!topics.has(said.topic)) topics.set(said.topic, new Set());
        topics.get(said.topic).add(socket);
      }
      socket.send('{"event":"ok"}');
    } else if (said.to) {
      users.get(said.to).send(JSON.stringify({ from: name, to: said.to, msg: said.msg }));
    } else {
      const heard = JSON.stringify({ from: name, topic: said.topic, msg: said.msg });
      for (const receiver of topics.get(said.topic)) receiver.send(heard);
    }
  });
});
