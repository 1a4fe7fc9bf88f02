declare module "virtual:styles" {
  /** The style sheet, uPlot's included. */
  const text: string;
  export default text;
}
