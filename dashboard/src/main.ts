import "uplot/dist/uPlot.min.css";
import "./app.css";
import { mount } from "svelte";
import App from "./App.svelte";
import { signInFromAddress } from "./lib/session";
import { language } from "./lib/texts";
import { applyTheme } from "./lib/theme";

document.documentElement.lang = language;
applyTheme();
const refusal = await signInFromAddress();
mount(App, { target: document.body, props: { refusal } });
