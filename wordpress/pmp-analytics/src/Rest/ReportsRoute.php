<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP\Analytics\Reports\Paths;
use PMP\Analytics\Reports\Query;
use PMP\Analytics\Reports\Reports;
use PMP\Analytics\Reports\Viewer;
use WP_Error;
use WP_REST_Request;
use WP_REST_Response;

/**
 * GET pmp/v1/mesh/<path of the mesh>: passes reports on to the dashboard in wp-admin, to whoever may see them. Keys stay on the
 * server. What it passes on is what a session of the mesh's own dashboard opens: reports.json, rendered from the contracts.
 *
 * The headers x-pmp-age (seconds) and, if the mesh is away and the answer is the last one, x-pmp-away say how new an answer is.
 */
final class ReportsRoute implements Registerable
{
    public const PATH = '/mesh';

    private const NONCE = 'wp_rest';

    private const SECONDS = 8;

    public function __construct(
        private readonly Reports $reports,
        private readonly Clock $clock,
        private readonly string $plugin_file,
    ) {
    }

    public function register(): void
    {
        Hook::action('rest_api_init', [$this, 'add_route']);
        Hook::filter('rest_pre_serve_request', [$this, 'serve'], 10, 2);
    }

    public function add_route(): void
    {
        register_rest_route(CollectRoute::SPACE, self::PATH . '(?P<path>/.+)', [
            'methods' => 'GET',
            'callback' => [$this, 'pass_on'],
            'permission_callback' => [$this, 'may_read'],
        ]);
    }

    /**
     * WordPress ignores a user's cookie without a nonce, but accepts other proofs of who asks, which pages of other sites may
     * send. Only a page of wp-admin has the nonce.
     */
    public function may_read(WP_REST_Request $request): bool|WP_Error
    {
        $nonce = $request->get_header('x_wp_nonce') ?? $request->get_param('_wpnonce');
        if (! is_string($nonce) || wp_verify_nonce($nonce, self::NONCE) === false) {
            return new WP_Error('pmp_no_nonce', __('Only the dashboard in wp-admin may call this.', 'pmp-analytics'), ['status' => 403]);
        }
        $text = __('You are not allowed to see the reports of this shop.', 'pmp-analytics');
        return Viewer::is_current_user() ?: new WP_Error('pmp_not_allowed', $text, ['status' => 403]);
    }

    public function pass_on(WP_REST_Request $request): WP_REST_Response
    {
        $path = Paths::of_the_mesh($this->plugin_file)->find((string) $request->get_url_params()['path']);
        if ($path === '') {
            return Refusal::of(404, 5, __('This is not a report of the mesh.', 'pmp-analytics'));
        }
        $query = Query::of(wp_unslash((string) ($_SERVER['QUERY_STRING'] ?? '')));
        $answer = $this->reports->ask($path, $query, self::SECONDS);
        if ($answer->status !== 200) {
            return Refusal::of($answer->status, $answer->status === 503 ? 14 : 9, $answer->text);
        }
        $response = new WP_REST_Response($answer->text, 200, ['Content-Type' => $answer->type]);
        $response->header('X-PMP-Age', (string) max(0, (int) ($this->clock->now() - $answer->at)));
        if ($answer->is_last) {
            $response->header('X-PMP-Away', '1');
        }
        if ($answer->disposition !== '') {
            $response->header('Content-Disposition', $answer->disposition);
        }
        return $response;
    }

    /**
     * Filter rest_pre_serve_request: sends an answer as the mesh gave it, which WordPress would otherwise encode as a JSON string.
     */
    public function serve(bool $is_served, WP_REST_Response $response): bool
    {
        $is_answer = str_starts_with((string) $response->get_matched_route(), '/' . CollectRoute::SPACE . self::PATH);
        if ($is_served || ! $is_answer || ! is_string($response->get_data())) {
            return $is_served;
        }
        echo $response->get_data();
        return true;
    }
}
