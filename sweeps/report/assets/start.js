// Builds the page that the story asks for.
document.title = `${story.name} · ${story.kind === "comparison" ? "comparison" : "sweep report"}`;
(story.kind === "comparison" ? comparison : report)(document.getElementById("page"));
document.body.dataset.ready = "yes";
