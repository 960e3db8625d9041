import { createHash } from "node:crypto";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig, type Plugin } from "vite";

/** The gateway serves files of fixed names; a hash in the query lets browsers keep each version for ever. */
function versions(): Plugin {
  return {
    name: "versions",
    enforce: "post",
    generateBundle(_, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("there is no index.html");
      let html = String(page.source);
      for (const file of Object.values(bundle)) {
        if (file === page) continue;
        const hash = createHash("sha256").update(file.type === "chunk" ? file.code : file.source).digest("hex");
        html = html.replaceAll(`"./${file.fileName}"`, `"./${file.fileName}?v=${hash.slice(0, 12)}"`);
      }
      page.source = html;
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [svelte(), versions()],
  build: {
    target: "es2022",
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    rollupOptions: {
      output: {
        entryFileNames: "dashboard/app.js",
        assetFileNames: "dashboard/app[extname]",
      },
    },
  },
});
